"""The machines that a stage's workers run on: this one, or those of a DeepSpeed hostfile.

`MBPO_HOSTFILE` names the file in the environment of whoever starts a stage.
"""

from __future__ import annotations

import os

from mbpo_core.errors import ConfigError
from mbpo_core.launching.hostfile import read_hostfile

HOSTFILE = "MBPO_HOSTFILE"


def many_hosts() -> bool:
    """A hostfile says where workers run."""
    return bool(os.environ.get(HOSTFILE))


def choose_hosts(processes: int) -> dict[str, int]:
    """The first slots of the hostfile, as many as there are processes, by host.

    Raises:
        ConfigError: there are fewer slots, or the file is wrong.
    """
    path = os.environ[HOSTFILE]
    there, chosen, left = read_hostfile(path), {}, processes
    for host, slots in there.items():
        if taken := min(slots, left):
            chosen[host] = taken
            left -= taken
    if left:
        raise ConfigError(
            f"launch.processes is {processes}, and the hostfile has {sum(there.values())} slots",
            where=path,
            expected="at least one slot a process",
            remedy="Lower launch.processes, or add machines.",
        )
    return chosen
