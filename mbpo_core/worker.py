"""Processes that train: `python -m mbpo_core.worker launch FOLDER N PARENT` and, under torchrun, `... train FOLDER`.

Both forms die with whoever started them, so that no worker outlives a cancelled run.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from mbpo_core.errors import MbpoError

_PR_SET_PDEATHSIG = 1


class ProgressFile:
    """A Progress that writes calls as JSON lines for the parent to pass on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def start(self, description: str, total: int) -> None:
        self._write("start", description, total)

    def advance(self, count: int = 1, **figures: float) -> None:
        self._write("advance", count, **figures)

    def log(self, message: str) -> None:
        self._write("log", message)

    def _write(self, call: str, *arguments: object, **figures: float) -> None:
        self._file.write(json.dumps([call, arguments, figures]) + "\n")


def main(arguments: list[str]) -> int:
    """Run one of the two forms; returns the exit code."""
    form, folder, *rest = arguments
    if form == "launch":
        processes, parent = map(int, rest)
        _die_with(parent)
        return _launch(folder, processes)
    _die_with(os.getppid())
    return _train(Path(folder))


def _launch(folder: str, processes: int) -> int:
    """Become torchrun, in this same process: no port or host name of the outside world is used."""
    from torch.distributed.run import main as torchrun

    torchrun(
        [
            "--standalone",
            "--local-addr=127.0.0.1",
            "--max-restarts=0",
            f"--nproc-per-node={processes}",
            "--module",
            "mbpo_core.worker",
            "train",
            folder,
        ]
    )
    return 0


def _train(folder: Path) -> int:
    rank = int(os.environ["RANK"])
    log = os.open(folder / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        _choose_accelerator()
        from mbpo_core.training.job import read_job
        from mbpo_core.training.loop import train

        job, rows = read_job(folder)
        train(job, rows, ProgressFile(folder / f"progress-{rank}.jsonl"))
    except BaseException as error:
        traceback.print_exc()
        _tell(folder / f"error-{rank}.json", error)
        raise
    return 0


def _choose_accelerator() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _tell(path: Path, error: BaseException) -> None:
    fields = {name: getattr(error, name, "") for name in ("what", "where", "expected", "remedy")}
    if not isinstance(error, MbpoError):
        fields["what"] = repr(error)
    path.write_text(json.dumps({"type": type(error).__name__, "time": time.time(), **fields}), encoding="utf-8")


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; elsewhere the launcher's signals must do."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
