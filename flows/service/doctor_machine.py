"""What `mbpo doctor` looks at on this machine: packages, accelerators, the store."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from flows.service.check import Check, compare_clock
from mbpo_core.config import LaunchConfig
from mbpo_core.errors import MbpoError
from mbpo_core.launching.nvml import Device, memory

# Named even when all is well: these are what people ask about.
SHOWN = ("torch", "transformers", "deepspeed", "prefect", "fastapi", "sqlalchemy")

# A 7B checkpoint with its optimizer state takes about 100 GB; below the second nothing works for long.
LOW_DISK_GB = 100
NO_DISK_GB = 2
FREE_SHARE = LaunchConfig().free_memory  # less, and a launch waits


def look_at_packages() -> Iterator[Check]:
    """Python and every requirement of ours, by what is installed; nothing heavy is imported."""
    from packaging.requirements import Requirement

    about = importlib.metadata.metadata("mbpo")
    yield _look_at_python(str(about["Requires-Python"]))
    requirements = [Requirement(text) for text in importlib.metadata.requires("mbpo") or []]
    for requirement in requirements:
        if requirement.marker is None:  # those with one are extras
            check = look_at_package(requirement.name, str(requirement.specifier))
            if check.status != "ok" or requirement.name in SHOWN:
                yield check
    # It breaks with releases of its dependencies that its own requirements allow.
    done = subprocess.run(
        [sys.executable, "-c", "import prefect.server.api.server"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Check(
            "prefect.server", "wrong", last, "Install the pinned versions: pip install -c constraints.txt mbpo."
        )
    else:
        yield Check("prefect.server", "ok", "can be imported")


def _look_at_python(wanted: str) -> Check:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check("Python", "ok", version)
    return Check("Python", "wrong", version, f"Use Python {wanted}.")


def look_at_package(name: str, wanted: str) -> Check:
    """Whether the installed version is one that we work with.

    Args:
        name: of the distribution.
        wanted: version specifier, e.g. `>=2,<3`.
    """
    from packaging.specifiers import SpecifierSet

    remedy = f"pip install '{name}{wanted}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "wrong", "not installed", remedy)
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check(name, "ok", version)
    return Check(name, "wrong", f"{version}, but {wanted} is needed", remedy)


def look_at_accelerators() -> Iterator[Check]:
    """What the node has, how much memory is free, who holds each; the hostfile."""
    from mbpo_core.launching.devices import holders, node_name
    from mbpo_core.launching.hostfile import read_hostfile, this_host
    from mbpo_core.launching.node import devices_here

    held = holders()
    devices = devices_here()
    if not devices:
        yield Check("accelerators", "ok", f"{node_name()} has none; everything runs on the CPU")
    if not all(device.fake for device in devices):
        yield from _look_at_torch()
    for device in devices:
        yield _look_at_device(device, held.get(device.name, ""))
    hostfile = os.environ.get("MBPO_HOSTFILE")
    if hostfile:
        hosts = read_hostfile(hostfile)
        found = ", ".join(f"{host} {slots}" for host, slots in hosts.items())
        if this_host(hosts, node_name()):
            yield Check("hostfile", "ok", found)
        else:
            remedy = f"Set MBPO_NODE to this machine's name in {hostfile}, or add the machine."
            yield Check("hostfile", "warning", f"{found}; {node_name()} is not one of them", remedy)


def _look_at_device(device: Device, holder: str) -> Check:
    name = device.name
    held = f"held by {holder}" if holder else "not held"
    if device.fake:
        return Check(f"accelerator {name}", "ok", f"a fake slot, {held}")
    free = memory(device)
    if free is None:
        return Check(f"accelerator {name}", "ok", f"shares the host's memory, {held}")
    if not holder and free.free < FREE_SHARE * free.total:
        return Check(f"accelerator {name}", "warning", f"{held}, but {free}", "End the processes that have its memory.")
    return Check(f"accelerator {name}", "ok", f"{free.free / 2**30:.1f} of {free.total / 2**30:.1f} GiB free, {held}")


def _look_at_torch() -> Iterator[Check]:
    """Its version file says for which CUDA it was built; importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return  # look_at_packages has said so
    built = runpy.run_path(str(Path(spec.origin).parent / "version.py")).get("cuda")
    if built:
        yield Check("torch for CUDA", "ok", str(built))
    else:
        remedy = "Install a CUDA build: https://pytorch.org/get-started/locally"
        yield Check("torch for CUDA", "wrong", "this torch is built for the CPU only", remedy)


def look_at_store(root: str) -> Iterator[Check]:
    """Whether files can be created exactly once, locked and read back; space; the clock of the store."""
    from mbpo_core.store.roots import open_files

    files = open_files(root)
    probe = f"doctor/{uuid.uuid4().hex}"
    try:
        first, second = files.create(probe, b"1"), files.create(probe, b"2")
        kept = files.read(probe)
        with files.locked():
            pass
        if files.local:
            yield compare_clock("store's clock", (files.local / probe).stat().st_mtime - time.time())
    except (OSError, MbpoError) as error:
        remedy = "Give this user write access, or name another root with --store or MBPO_STORE."
        yield Check("store", "wrong", f"cannot write to {root}: {error}", remedy)
        return
    finally:
        with contextlib.suppress(OSError, MbpoError):
            files.remove(probe)
            with files.locked():
                files.prune("doctor")
    if (first, second, kept) == (True, False, b"1"):
        yield Check("store", "ok", f"{root}: writable, creates a file only once")
    else:
        remedy = "Two runs could overwrite each other: use a file system or S3 service with conditional writes."
        yield Check("store", "wrong", f"{root}: creating a file twice was not refused", remedy)
    if files.local:
        yield look_at_space(files.local)


def look_at_space(folder: Path) -> Check:
    """Free space of the file system that holds a folder."""
    free = shutil.disk_usage(folder).free / 1e9
    remedy = "Free space: mbpo gc lists what no run needs."
    if free < NO_DISK_GB:
        return Check("disk space", "wrong", f"{free:.1f} GB free", remedy)
    if free < LOW_DISK_GB:
        return Check(
            "disk space", "warning", f"{free:.1f} GB free; a 7B checkpoint takes about {LOW_DISK_GB} GB", remedy
        )
    return Check("disk space", "ok", f"{free:.0f} GB free")
