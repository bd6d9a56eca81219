"""Processes that outlive the command that started them, told apart by a pid file and a mark in their environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "MBPO_SERVICE"
"""Whatever a daemon starts inherits this variable, so that its descendants are found even when it is gone."""


@dataclass(frozen=True)
class Daemon:
    """One detached process.

    Args:
        name: names the pid file and the log.
        folder: where both lie; also the mark's value.
    """

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.folder / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Pid and start time: a pid alone may have been given to another process since."""
        return self.folder / f"{self.name}.json"

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> psutil.Process:
        """Start it in a session of its own; what it prints goes to the log."""
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                list(words),
                env={**environment, MARK: str(self.folder)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = psutil.Process(started.pid)
        self.pid_file.write_text(json.dumps({"pid": process.pid, "created": process.create_time()}), encoding="utf-8")
        return process

    def process(self) -> psutil.Process | None:
        """The running process, or None if it has ended."""
        try:
            noted = json.loads(self.pid_file.read_text(encoding="utf-8"))
            process = psutil.Process(noted["pid"])
            # Start times are counted in clock ticks since boot; a step of the clock moves them all a little.
            same = abs(process.create_time() - noted["created"]) < 2
            return process if same and alive(process) else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def last_lines(self, count: int = 20) -> str:
        """The end of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def variable(process: psutil.Process, name: str) -> str:
    """A variable of the environment that a process started with; empty if it has none or cannot be seen."""
    try:
        return str(process.environ().get(name, ""))
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return ""  # ended meanwhile, or somebody else's


def children(process: psutil.Process | None) -> list[psutil.Process]:
    """What a process started itself."""
    try:
        return process.children() if process else []
    except psutil.NoSuchProcess:
        return []


def marked(folder: Path) -> list[psutil.Process]:
    """Every process of this user that a daemon of this folder started, directly or not, and the daemons."""
    return [process for process in psutil.process_iter() if variable(process, MARK) == str(folder) and alive(process)]


def alive(process: psutil.Process) -> bool:
    """Whether it runs; a dead one that nobody has asked about yet does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end(asked: Sequence[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Ask processes to end and wait.

    Args:
        asked: processes that get SIGTERM.
        patience_s: seconds to wait.

    Returns:
        Those that are still there.
    """
    for process in asked:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    return list(psutil.wait_procs(asked, timeout=patience_s)[1])


def kill(left: Sequence[psutil.Process]) -> None:
    """End processes that would not end by themselves."""
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)
