"""One node: its name, the folder its users share, and the accelerators it may use."""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
from pathlib import Path

from mbpo_core.errors import ConfigError, GpuUnavailable
from mbpo_core.launching.nvml import Device, driver_devices, visible


def node_name() -> str:
    """What this machine is called in limits, logs and the hostfile: MBPO_NODE, or the host's name."""
    return os.environ.get("MBPO_NODE") or socket.gethostname()


def node_folder() -> Path:
    """The folder that all users of this node share, for locks and pids.

    MBPO_NODE_FOLDER, or `mbpo-node` in the folder for temporary files. Containers that share accelerators must share
    it too.

    Raises:
        ConfigError: it is not a folder in which this user may write.
    """
    folder = Path(os.environ.get("MBPO_NODE_FOLDER") or Path(tempfile.gettempdir()) / "mbpo-node")
    try:
        folder.mkdir(parents=True, mode=0o777)
        folder.chmod(0o1777)  # everybody writes, nobody removes what others wrote
    except FileExistsError:
        pass
    except OSError as error:
        raise unusable(folder, error.strerror or "cannot be made") from error
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise unusable(folder, "is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unusable(folder, "belongs to somebody else")
    return folder


def devices_here() -> list[Device]:
    """The accelerators of this node that may be used, in their order; see `devices.node_devices`."""
    setting = os.environ.get("MBPO_DEVICES", "").strip()
    if not setting:
        return visible(driver_devices(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    names = [name.strip() for name in setting.split(",")]
    fake = all(re.fullmatch(r"fake:\d+", name) for name in names)
    if len(set(names)) < len(names) or not (fake or all(re.fullmatch(r"\d+", name) for name in names)):
        raise ConfigError(
            f"MBPO_DEVICES is {setting!r}",
            expected="indices like 0,1 or fake slots like fake:0,fake:1, each once",
            remedy="Correct or unset it.",
        )
    if fake:
        return [Device(name, name) for name in names]
    there = {device.name: device for device in driver_devices()}
    if missing := [name for name in names if name not in there]:
        raise GpuUnavailable(
            f"MBPO_DEVICES names accelerator {', '.join(missing)}, which is not there",
            where=f"MBPO_DEVICES={setting}",
            expected="some of " + (", ".join(there) or "none: no driver shows any"),
            remedy="Correct or unset it; nvidia-smi -L lists what the driver sees.",
        )
    return [there[name] for name in names]


def unusable(path: Path, why: str) -> ConfigError:
    """The error about something wrong in the node's shared folder."""
    return ConfigError(
        f"the node's shared folder cannot be used: {why}",
        where=str(path),
        expected="a folder that every user of this node may write to",
        remedy="Remove it, or name another one with MBPO_NODE_FOLDER (the same for all users).",
    )
