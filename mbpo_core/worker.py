"""Processes that work for a stage: `python -m mbpo_core.worker launch TASK FOLDER N PARENT`, and under the launcher
that this becomes, `... train FOLDER` or `... share FOLDER` in each of N processes.

All forms die with whoever started them, so that no worker outlives a cancelled run.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path

from mbpo_core.config import LaunchConfig
from mbpo_core.errors import ConfigError, GpuUnavailable
from mbpo_core.launching.devices import hold_leased, lease_own
from mbpo_core.launching.hosts import many_hosts
from mbpo_core.launching.launcher import LEASED_ON, become_launcher
from mbpo_core.launching.reaping import die_with_parent
from mbpo_core.launching.relay import ProgressFile, follow_heartbeat, tell_error
from mbpo_core.store.lease import machine


def main(arguments: list[str]) -> int:
    """Run one of the forms; returns the exit code."""
    form, *rest = arguments
    if form == "launch":
        task, folder, processes, parent = rest
        die_with_parent(int(parent))
        become_launcher(task, Path(folder), int(processes))
    else:
        die_with_parent(os.getppid())
        _work(form, Path(rest[0]))
    return 0


def _work(task: str, folder: Path) -> None:
    rank = int(os.environ["RANK"])
    if many_hosts():
        _expect_shared(folder)
        follow_heartbeat(folder, rank)
    log = os.open(folder / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        if os.environ.get(LEASED_ON, machine()) == machine():
            hold_leased()
        else:  # what was leased are devices of the machine that the run was started from
            lease_own(int(os.environ["LOCAL_RANK"]), launch=LaunchConfig(), log=lambda line: print(line, flush=True))
        _choose_accelerator()
        progress = ProgressFile(folder / f"progress-{rank}.jsonl")
        if task == "train":
            _train(folder, progress)
        else:
            _share(folder, rank, progress)
    except BaseException as error:
        traceback.print_exc()
        tell_error(folder, rank, error)
        raise
    (folder / f"done-{rank}").touch()


def _expect_shared(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(
            f"the stage's folder is not there on {socket.gethostname()}",
            where=str(folder),
            expected="a store on a file system that all machines of the hostfile share",
            remedy="Put the store there, or unset MBPO_HOSTFILE.",
        )


def _train(folder: Path, progress: ProgressFile) -> None:
    from mbpo_core.training.job import read_job
    from mbpo_core.training.loop import train

    train(*read_job(folder), progress)


def _share(folder: Path, rank: int, progress: ProgressFile) -> None:
    from mbpo_core.launching.shares import make_share

    make_share(folder, rank, progress)


def _choose_accelerator() -> None:
    """This process's own among those of the node; never the CPU where an accelerator was leased."""
    import torch

    leased = bool(os.environ.get("MBPO_ACCELERATED"))
    if torch.cuda.is_available() and (leased or many_hosts()):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    elif leased:
        raise GpuUnavailable(
            "a worker was given an accelerator and PyTorch sees none",
            where=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}",
            expected="torch.cuda.is_available()",
            remedy="Check the driver (nvidia-smi) and that PyTorch is a CUDA build; mbpo doctor looks at both.",
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
