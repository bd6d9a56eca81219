"""Locks of a node's accelerators: one file a device, which the kernel unlocks when its last holder is gone.

A device is taken under the node's mutex with an exclusive lock that is then turned into a shared one; whoever works on
the device adds a shared lock of its own. So it is free exactly when the last process of the tree has ended, however it
ended. The mutex is needed because turning a lock is not atomic, and it makes taking several devices all or nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mbpo_core.errors import GpuUnavailable
from mbpo_core.launching.node import node_folder, unusable

_MUTEX_WAIT_S = 30.0
_MUTEX_POLL_S = 0.02


@dataclass(frozen=True)
class Holder:
    """Who took a device.

    Attributes:
        who: user@host pid.
        purpose: the run and stage it is for; may be empty.
        since: seconds since the epoch.
        token: of the lease, which its workers show.
    """

    who: str
    purpose: str
    since: float
    token: str

    def __str__(self) -> str:
        purpose = f" ({self.purpose})" if self.purpose else ""
        return f"{self.who}{purpose} since {time.strftime('%H:%M', time.localtime(self.since))}"


class DeviceLock:
    """The lock of one device, by its key; closing the process closes it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.path = node_folder() / f"device-{re.sub('[^A-Za-z0-9-]', '_', key)}.lock"
        self._descriptor = _open(self.path)

    def take(self) -> bool:
        """Lock it alone, under `mutex`; False if anybody works on it."""
        return _try_alone(self._descriptor)

    def share(self, holder: Holder) -> None:
        """Say who has it and let its workers in, under `mutex` and after `take`."""
        self._write(json.dumps(asdict(holder)))
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def join(self, token: str) -> None:
        """Work on it too, as part of the lease with that token.

        Raises:
            GpuUnavailable: the device belongs to another lease by now.
        """
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        holder = self.holder()
        if holder is None or holder.token != token:
            self.release()
            raise GpuUnavailable(
                f"the lease of accelerator {self.key} was given to {holder or 'nobody'} before this worker started",
                where=str(self.path),
                remedy="Run again: whoever started this worker is gone.",
            )

    def holder(self) -> Holder | None:
        """Who took it last; None if nobody ever did."""
        text = os.pread(self._descriptor, 4096, 0)
        try:
            return Holder(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def release(self) -> None:
        """Give up this process's lock; others keep theirs."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also for copies that a fork made
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, text: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)


@contextlib.contextmanager
def mutex() -> Iterator[None]:
    """The right to look at and take device locks, for moments.

    Raises:
        GpuUnavailable: another process has kept it for half a minute.
    """
    path = node_folder() / "mutex.lock"
    descriptor, deadline = _open(path), time.monotonic() + _MUTEX_WAIT_S
    try:
        while not _try_alone(descriptor):
            if time.monotonic() > deadline:
                raise GpuUnavailable(
                    f"another process has been choosing accelerators for more than {_MUTEX_WAIT_S:.0f} s",
                    where=str(path),
                    remedy="It may be stopped or hang in the driver: `fuser` with that file names it.",
                )
            time.sleep(_MUTEX_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    """A descriptor of a file that every user may lock and write; made if need be."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        for _ in range(3):
            # No O_CREAT on what may exist: Linux refuses that for others' files in a folder open to all.
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, flags)
            _create(path)
        return os.open(path, flags)
    except OSError as error:
        raise unusable(path, error.strerror or "cannot be opened") from error


def _create(path: Path) -> None:
    """Let the file appear with its final rights."""
    aside = path.with_name(f".{uuid.uuid4().hex}")
    descriptor = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.fchmod(descriptor, 0o666)  # whatever this user's umask
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        os.close(descriptor)
        aside.unlink()
