"""A DeepSpeed hostfile: one line a machine, `name slots=N`."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from pathlib import Path

import psutil

from mbpo_core.errors import ConfigError

_LINE = re.compile(r"^(\S+)\s+slots=(\d+)\s*(#.*)?$")


def read_hostfile(path: str | Path) -> dict[str, int]:
    """Slots (accelerators) of each machine, in the file's order.

    Raises:
        ConfigError: the file is missing or empty, a line has another form, or a machine is named twice.
    """
    expected = "lines like `node-a slots=8`, each machine once"
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the hostfile: {error.strerror}", where=str(path), expected=expected) from error
    slots: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None or match[1] in slots:
            raise ConfigError(f"wrong line {line!r}", where=f"{path}, line {number}", expected=expected)
        slots[match[1]] = int(match[2])
    if not slots:
        raise ConfigError("the hostfile names no machine", where=str(path), expected=expected)
    return slots


def this_host(hosts: Collection[str], name: str) -> str | None:
    """Which of the machines this one is; None if none of them.

    Args:
        hosts: names or addresses, of `read_hostfile`.
        name: `devices.node_name()`; else the host's name and addresses decide.
    """
    if name in hosts:
        return name
    own = {name, socket.gethostname(), socket.getfqdn(), "localhost"}
    own |= {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return next((host for host in hosts if host in own or host.split(".")[0] in own), None)
