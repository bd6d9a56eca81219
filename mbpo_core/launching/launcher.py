"""How the processes of one tree are started: torchrun on this machine, the DeepSpeed launcher on several, none for one.

This runs in the launcher's own process (`python -m mbpo_core.worker launch ...`), which becomes the launcher.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from mbpo_core.launching.hosts import choose_hosts, many_hosts
from mbpo_core.store.lease import machine

LEASED_ON = "MBPO_LEASED_ON"
"""The machine that MBPO_LEASED speaks of."""

_WORKER = "mbpo_core.worker"
# By name, because they show in every machine's process list: no credential belongs here.
_PASSED_ON = (
    "MBPO_TREE", "MBPO_HOSTFILE", "MBPO_NODE_FOLDER", "MBPO_LEASED", "MBPO_LEASE_TOKEN", "MBPO_ACCELERATED",
    "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "DO_NOT_TRACK", "TMPDIR", "XDG_CACHE_HOME", "GLOO_SOCKET_IFNAME",
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE",
)  # fmt: skip


def become_launcher(task: str, folder: Path, processes: int) -> None:
    """Start a task's processes and wait for them; raises SystemExit or another error where one of them fails."""
    if many_hosts():
        _deepspeed(task, folder, choose_hosts(processes))
    elif processes > 1:
        _torchrun(task, folder, processes)
    else:
        _become_worker(task, folder)


def _become_worker(task: str, folder: Path) -> None:
    """A lone worker needs no launcher, which would take as long to start as it does itself."""
    environment = {**os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    environment.pop("MASTER_ADDR", None)  # there is nobody to meet
    os.execve(sys.executable, [sys.executable, "-m", _WORKER, task, str(folder)], environment)


def _torchrun(task: str, folder: Path, processes: int) -> None:
    """No port or host name of the outside world is used."""
    from torch.distributed.run import main

    main(
        [
            "--standalone",
            "--local-addr=127.0.0.1",
            "--max-restarts=0",
            f"--nproc-per-node={processes}",
            "--module",
            _WORKER,
            task,
            str(folder),
        ]
    )


def _deepspeed(task: str, folder: Path, hosts: Mapping[str, int]) -> None:
    chosen, environment = folder / "hostfile", folder / "environment"
    chosen.write_text("".join(f"{host} slots={count}\n" for host, count in hosts.items()), encoding="utf-8")
    environment.write_text("".join(f"{k}={v}\n" for k, v in _remote_environment().items()), encoding="utf-8")
    os.environ["DS_ENV_FILE"] = str(environment)  # read when DeepSpeed's runner is imported
    from deepspeed.launcher.runner import main

    main(
        [
            f"--hostfile={chosen}",
            f"--launcher={os.environ.get('MBPO_LAUNCHER') or 'pdsh'}",
            f"--master_addr={os.environ.get('MBPO_MASTER_ADDR') or next(iter(hosts))}",
            f"--master_port={os.environ.get('MBPO_MASTER_PORT') or _free_port()}",
            "--force_multi",  # a lone host need not be this one
            "--no_ssh_check",  # it would not know the arguments that the backend gives to ssh
            "--no_local_rank",
            "--module",
            _WORKER,
            task,
            str(folder),
        ]
    )


def _remote_environment() -> dict[str, str]:
    """What processes on other machines are told; which devices are theirs, DeepSpeed says."""
    return {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)} | {LEASED_ON: machine()}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
