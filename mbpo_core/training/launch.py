"""Training in several processes: started under torchrun, watched, and killed to the last one.

The parent writes a job folder (JSON and Parquet), `python -m mbpo_core.worker` does the work and leaves its result in
the job's work folder. The parent passes progress on and turns a failure back into the error it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mbpo_core import errors
from mbpo_core.stage import Progress
from mbpo_core.training.job import Job, JobRows, write_job

_POLL_S = 0.2
_GRACE_S = 10.0
_LOG_LINES = 50


def launch(job: Job, rows: JobRows, progress: Progress) -> None:
    """Run `loop.train` in `job.config.processes` processes on this machine.

    Raises:
        WorkerFailed: a process died, or the time-out passed; carries the last log lines of rank 0.
        MbpoError: whatever error of ours the work raised, as if it had been raised here.
    """
    folder = Path(job.work) / "job"
    shutil.rmtree(folder, ignore_errors=True)
    write_job(folder, job, rows)
    deadline = time.monotonic() + job.config.timeout_s
    with _workers(folder, job.config.processes) as process:
        told = _Told(folder / "progress-0.jsonl", progress)
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise _failure(folder, f"training took longer than training.timeout_s = {job.config.timeout_s} s")
            told.catch_up()
            time.sleep(_POLL_S)
        told.catch_up()
        if process.returncode:
            raise _own_error(folder) or _failure(folder, f"the workers ended with code {process.returncode}")


@contextlib.contextmanager
def _workers(folder: Path, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher in a session of its own; however the block is left, it and its workers are gone afterwards."""
    command = [sys.executable, "-m", "mbpo_core.worker", "launch", str(folder), str(processes), str(os.getpid())]
    with (folder / "launcher.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # Torchrun puts every worker into a session of its own and passes this signal on; killed itself, it could not.
        # Where it hangs and must be killed, its workers die by their own parent-death signal.
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Told:
    """Passes a worker's progress lines on; see `worker.ProgressFile` for who writes them."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path, self._progress, self._read = path, progress, 0

    def catch_up(self) -> None:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8") as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._read = file.tell()
                call, arguments, figures = json.loads(line)
                getattr(self._progress, call)(*arguments, **figures)


def _own_error(folder: Path) -> errors.MbpoError | None:
    """The first error of ours that a worker met; the others' are mostly about losing touch with it."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("error-*.json")]
    for error in sorted(told, key=lambda error: float(error["time"])):
        kind = getattr(errors, error["type"], None)
        if isinstance(kind, type) and issubclass(kind, errors.MbpoError):
            return kind(error["what"], where=error["where"], expected=error["expected"], remedy=error["remedy"])
    return None


def _failure(folder: Path, what: str) -> errors.WorkerFailed:
    log = folder / "rank-0.log"
    if not log.exists() or not log.stat().st_size:
        log = folder / "launcher.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return errors.WorkerFailed(
        what,
        where=str(log),
        remedy="The log ends with:\n" + "\n".join(tail) if tail else "The log is empty.",
    )
