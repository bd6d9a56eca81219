"""What NVIDIA's driver says about this node, through NVML: neither torch nor CUDA is started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from mbpo_core.errors import GpuUnavailable

_GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: what people and CUDA_VISIBLE_DEVICES call it: its index in PCI order, or the UUID of a MIG slice.
        key: its UUID, the same in every container of the node, whatever index it has there.
    """

    name: str
    key: str

    @property
    def fake(self) -> bool:
        """A slot that only stands for an accelerator."""
        return self.key.startswith("fake:")


@dataclass(frozen=True)
class Memory:
    """An accelerator's memory, in bytes, and the processes that have some of it."""

    free: int
    total: int
    takers: tuple[str, ...] = ()

    def __str__(self) -> str:
        taken = f"{(self.total - self.free) / _GIB:.1f} of {self.total / _GIB:.1f} GiB taken"
        return f"{taken} by {', '.join(self.takers)}" if self.takers else f"{taken} by processes this one cannot see"


def driver_devices() -> list[Device]:
    """Every accelerator the driver shows, in PCI order; none without a driver.

    Raises:
        GpuUnavailable: there is a driver, but it does not answer.
    """
    with _nvml() as nvml:
        if nvml is None:
            return []
        handles = (nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount()))
        return [Device(str(index), _text(nvml.nvmlDeviceGetUUID(handle))) for index, handle in enumerate(handles)]


def visible(devices: Sequence[Device], setting: str | None) -> list[Device]:
    """The devices that a value of CUDA_VISIBLE_DEVICES leaves, in its order.

    Args:
        devices: of the driver.
        setting: indices (in PCI order), UUIDs or their unique beginnings, MIG slices; None leaves all.

    Raises:
        GpuUnavailable: it names a device that is not there.
    """
    if setting is None or not devices:
        return list(devices)
    found: list[Device] = []
    for entry in filter(None, map(str.strip, setting.split(","))):
        if entry == "-1" or entry.lower() == "nodevfiles":  # both hide this and what follows
            break
        if entry.startswith("MIG-"):
            found.append(Device(entry, entry))
            continue
        named = [d for d in devices if entry == d.name or (entry.startswith("GPU-") and d.key.startswith(entry))]
        if len(named) != 1:
            raise GpuUnavailable(
                f"CUDA_VISIBLE_DEVICES names accelerator {entry}, which is not there",
                where=f"CUDA_VISIBLE_DEVICES={setting}",
                expected="some of " + ", ".join(f"{d.name} ({d.key})" for d in devices),
                remedy="Correct or unset it; nvidia-smi -L lists what the driver sees.",
            )
        found += named
    return found


def memory(device: Device) -> Memory | None:
    """How much memory of a device is free now; None where the driver cannot say.

    Raises:
        GpuUnavailable: the device is gone, or the driver does not answer.
    """
    with _nvml() as nvml:
        if nvml is None:
            raise GpuUnavailable(f"accelerator {device.name} is gone with its driver", remedy="Look at nvidia-smi.")
        handle = nvml.nvmlDeviceGetHandleByUUID(device.key)
        try:
            info = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError_NotSupported:  # memory shared with the host
            return None
        processes: list[Any] = []
        with contextlib.suppress(nvml.NVMLError):  # only told about
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return Memory(int(info.free), int(info.total), tuple(map(_taker, processes)))


def _taker(process: Any) -> str:
    """pid 4711 (python, 70.2 GiB); inside a container the driver may know neither name nor size."""
    known = []
    with contextlib.suppress(psutil.Error):
        known.append(psutil.Process(process.pid).name())
    if process.usedGpuMemory:
        known.append(f"{process.usedGpuMemory / _GIB:.1f} GiB")
    return f"pid {process.pid} ({', '.join(known)})" if known else f"pid {process.pid}"


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """The NVML module, started; None where there is no driver."""
    import pynvml  # type: ignore[import-untyped, unused-ignore]

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        yield None
        return
    except pynvml.NVMLError as error:
        raise _silent(error) from error
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise _silent(error) from error
    finally:
        pynvml.nvmlShutdown()


def _silent(error: Exception) -> GpuUnavailable:
    return GpuUnavailable(
        f"NVIDIA's driver does not answer: {error}",
        where="NVML",
        remedy="Look at nvidia-smi and the kernel log; after a driver update, restart the machine.",
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
