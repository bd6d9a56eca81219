"""Where one stage computes: in this process or in workers, and on which devices."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ConfigError
from mbpo_core.launching.devices import devices_wanted, lease_devices
from mbpo_core.launching.hosts import HOSTFILE, many_hosts
from mbpo_core.launching.reaping import reap
from mbpo_core.launching.supervisor import Supervisor
from mbpo_core.planning import StagePlan
from mbpo_core.stage import Progress, StageSpec, Workers
from mbpo_core.store.core import Store


@contextlib.contextmanager
def placed(store: Store, spec: StageSpec, plan: StagePlan, progress: Progress) -> Iterator[Workers | None]:
    """Have devices, and workers where the stage is to compute in them; None computes in this process.

    Args:
        progress: told what is waited for.

    Raises:
        GpuUnavailable: the devices that are needed are not there, or did not come free in time.
        ConfigError: the hostfile does not go with the store, or has too few slots.
    """
    if not spec.uses_policy:
        yield None
        return
    request = plan.request
    policy = PolicyConfig.model_validate(request.policy_config) if request.policy_config else None
    wanted = devices_wanted(True, policy, request.launch)
    in_workers = _in_workers(request.launch.launcher, wanted > 0 or request.launch.processes > 1 or many_hosts())
    if in_workers:
        _check_place(store, spec)
    if left := reap():
        progress.log(f"{request.key}: ended what a killed run had left behind: process {', '.join(map(str, left))}")
    with lease_devices(wanted, launch=request.launch, log=progress.log, purpose=request.key) as lease:
        environment = lease.environment()
        if in_workers:
            yield Supervisor(request.launch, devices=lease.devices, environment=environment)
            return
        if lease.devices:  # this process's memory there comes back when it ends, not before
            lease.keep()
            os.environ.update({name: value for name, value in environment.items() if name.startswith("CUDA_")})
        yield None


def _in_workers(launcher: str, needed: bool) -> bool:
    return needed if launcher == "auto" else launcher == "workers"


def _check_place(store: Store, spec: StageSpec) -> None:
    """Workers must see what they are told of."""
    if spec.shared and store.root.startswith("memory://"):
        raise ConfigError(
            f"stage {spec.name} is to run in workers, which do not see a store in this process's memory",
            where=store.root,
            remedy="Set launch.launcher: inline, or put the store into a folder.",
        )
    if many_hosts() and store.files.local is None:
        raise ConfigError(
            f"a store at {store.root} does not go with workers on several machines",
            where=f"{HOSTFILE}={os.environ[HOSTFILE]}",
            expected="a folder that all machines share",
            remedy="Put the store on a shared file system, or unset the variable.",
        )
