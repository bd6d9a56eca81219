"""Process trees of ours: every process carries its tree's token, and a record names who watches over it.

A record lies in the node's folder while its tree lives, so that anyone can end the tree of a supervisor that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from mbpo_core.launching.devices import node_folder
from mbpo_core.store.lease import machine, process_started

TOKEN = "MBPO_TREE"
"""Environment variable that names a process's tree."""

_ROUNDS = 5
"""A process may start another one while it is being looked for."""


class Tree(BaseModel):
    """One launcher with all its workers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    token: str
    supervisor: int  # process that watches over it
    started: str  # of that process, so that a reused number is told apart
    machine: str  # what the number means something in
    flow_run: str = ""  # Prefect's id
    devices: tuple[str, ...] = ()
    since: float  # seconds since the epoch

    def orphaned(self) -> bool:
        """The supervisor is known to be gone."""
        return self.machine == machine() and process_started(self.supervisor) != self.started

    def remember(self) -> None:
        """Write the record."""
        folder = _folder()
        aside = folder / f".{self.token}"
        aside.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        aside.rename(folder / f"{self.token}.json")

    def forget(self) -> None:
        """Remove the record."""
        (_folder() / f"{self.token}.json").unlink(missing_ok=True)

    def processes(self) -> Iterator[psutil.Process]:
        """Its processes on this machine, as far as this user may look; never the caller itself."""
        for process in psutil.process_iter():
            try:
                mine = process.pid != os.getpid() and process.uids().real == os.getuid()
                if mine and process.environ().get(TOKEN) == self.token and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except psutil.Error:  # it ended meanwhile
                continue

    def kill(self, wait_s: float = 5.0) -> list[int]:
        """Kill all of them and wait until they are gone; returns their numbers.

        Args:
            wait_s: at most this long, seconds; a process inside a system call ends after it.
        """
        killed: list[int] = []
        deadline = time.monotonic() + wait_s
        for _ in range(_ROUNDS):
            found = list(self.processes())
            if not found:
                break
            for process in found:
                try:
                    process.kill()
                    killed.append(process.pid)
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(found, timeout=max(0.0, deadline - time.monotonic()))
        return killed


def new_tree(devices: Sequence[str]) -> Tree:
    """A tree that this process watches over; nothing is written yet."""
    return Tree(
        token=uuid.uuid4().hex,
        supervisor=os.getpid(),
        started=process_started(os.getpid()) or "",
        machine=machine(),
        flow_run=os.environ.get("PREFECT__FLOW_RUN_ID", ""),
        devices=tuple(devices),
        since=time.time(),
    )


def trees() -> list[Tree]:
    """The records of this user's trees on this node; what others wrote could name a tree that is well."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError):  # forgotten meanwhile, or not a record
            if path.lstat().st_uid == os.getuid():
                found.append(Tree.model_validate(json.loads(path.read_text(encoding="utf-8"))))
    return found


def _folder() -> Path:
    folder = node_folder() / "trees"
    try:
        folder.mkdir(parents=True)
        folder.chmod(0o1777)  # every user of the node writes here, and removes but their own
    except FileExistsError:
        pass
    return folder
