"""Leases: at most one live worker writes an artifact; a dead worker's lease is taken over."""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

from mbpo_core.errors import LeaseHeld, StoreError
from mbpo_core.store.files import Files
from mbpo_core.store.manifest import Document

EXPIRY_S = 60.0
HEARTBEAT_S = 10.0

_log = logging.getLogger(__name__)


class LeaseInfo(Document):
    """What lease.json says."""

    token: str
    holder: str
    machine: str
    pid: int
    started: str  # of the process, so that a reused pid is told apart
    heartbeat: float  # seconds since the epoch
    expires: float

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat."""
        return max(0.0, time.time() - self.heartbeat)

    def live(self) -> bool:
        """The holder may still be at work: not expired, and not known to be gone."""
        if time.time() >= self.expires:
            return False
        return self.machine != machine() or process_started(self.pid) == self.started


class Lease:
    """The right to write one artifact, renewed by a thread until released.

    Args:
        files: the store's tree.
        path: of lease.json.

    Raises (on entering):
        LeaseHeld: another live worker has it.
    """

    def __init__(
        self, files: Files, path: str, *, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._files, self._path = files, path
        self._expiry_s, self._heartbeat_s = expiry_s, heartbeat_s
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="mbpo-lease", daemon=True)

    def __enter__(self) -> Lease:
        with self._files.locked():
            held = read_lease(self._files, self._path)
            if held is not None and held.live():
                raise self._refusal(held)
            if self._files.size(self._path) is not None:
                _log.warning("taking over %s from %s, which is gone", self._path, held.holder if held else "a worker")
                self._files.remove(self._path)
            if not self._files.create(self._path, self._document()):
                raise self._refusal(read_lease(self._files, self._path))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        # A disk that fills or vanishes must not hide the error that ended the stage; the lease expires anyway.
        with contextlib.suppress(OSError, StoreError), self._files.locked():
            if self.mine():
                self._files.remove(self._path)

    def holder(self) -> LeaseInfo | None:
        """Who has it now; None if nobody."""
        return read_lease(self._files, self._path)

    def mine(self) -> bool:
        """The lease is still this one: nobody took it over while this process slept."""
        held = self.holder()
        return held is not None and held.token == self.token

    def check(self) -> None:
        """Raise LeaseHeld if the lease was lost."""
        if not self.mine():
            raise self._refusal(self.holder())

    def _document(self) -> bytes:
        now = time.time()
        info = LeaseInfo(
            token=self.token,
            holder=who(),
            machine=machine(),
            pid=os.getpid(),
            started=process_started(os.getpid()) or "",
            heartbeat=now,
            expires=now + self._expiry_s,
        )
        return info.model_dump_json(indent=1).encode()

    def _renew(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            try:
                with self._files.locked():
                    if self.mine():
                        self._files.write(self._path, self._document())
            except Exception as error:  # the next beat may succeed; if none does, the lease expires
                _log.warning("could not renew %s: %s", self._path, error)

    def _refusal(self, held: LeaseInfo | None) -> LeaseHeld:
        holder = held.holder if held else "another worker"
        last = f", last heard of {held.silent_s:.0f} s ago" if held else ""
        return LeaseHeld(
            f"{holder} is writing this artifact{last}",
            where=f"{self._files.root}/{self._path}",
            remedy="Wait for it or stop it; a dead worker's lease ends by itself "
            f"(at once on the same machine, otherwise {self._expiry_s:.0f} s after its last heartbeat).",
        )


def read_lease(files: Files, path: str) -> LeaseInfo | None:
    """The lease at that path; None if there is none, or none that can be read."""
    try:
        return LeaseInfo.model_validate(json.loads(files.read(path)))
    except (FileNotFoundError, ValueError):
        return None


def who() -> str:
    """user@host pid, of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"


@functools.cache
def machine() -> str:
    """Names what process numbers mean something in: host, boot and process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    try:
        return f"{socket.gethostname()} {boot.read_text().strip()} {os.readlink(space)}"
    except OSError:  # not Linux
        return socket.gethostname()


def process_started(pid: int) -> str | None:
    """When a process of this machine started, in ticks since boot; None if it is gone."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return _alive_without_proc(pid)
    return None if state in "ZX" else fields[18]  # field 22 of the file; a zombie does no more work


def _alive_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
