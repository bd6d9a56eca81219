"""Which accelerators a stage works on: what the node has, what is wanted, and the lease that keeps two runs apart.

Machines without accelerators use fake slots (MBPO_DEVICES=fake:0,fake:1), which go through the same lease.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mbpo_core.config import LaunchConfig, PolicyConfig
from mbpo_core.errors import GpuUnavailable
from mbpo_core.launching.hostfile import this_host
from mbpo_core.launching.hosts import choose_hosts, many_hosts
from mbpo_core.launching.locks import DeviceLock, Holder, mutex
from mbpo_core.launching.node import devices_here, node_folder, node_name
from mbpo_core.launching.nvml import Device, memory

__all__ = [
    "DeviceLease",
    "devices_wanted",
    "hold_leased",
    "holders",
    "lease_devices",
    "lease_own",
    "node_devices",
    "node_folder",
    "node_name",
]

_POLL_S = 0.5
_SAY_S = 30.0
_KEPT: list[DeviceLock] = []  # until this process ends


@dataclass(frozen=True)
class DeviceLease:
    """The devices of one lease.

    Attributes:
        devices: their names, in the order in which they are used.
    """

    devices: tuple[str, ...]
    _devices: tuple[Device, ...] = ()
    _locks: list[DeviceLock] = field(default_factory=list)
    _token: str = ""

    def environment(self) -> dict[str, str]:
        """Variables for the processes that work on the devices; each calls `hold_leased` first."""
        leased = {"MBPO_LEASED": ",".join(device.key for device in self._devices), "MBPO_LEASE_TOKEN": self._token}
        real = [device.name for device in self._devices if not device.fake]
        if not real:
            return leased
        # The driver counts in PCI order; CUDA by itself would put the fastest device first.
        return {**leased, "CUDA_VISIBLE_DEVICES": ",".join(real), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    def keep(self) -> None:
        """Hold the devices until this process ends: it works on them itself, and its memory there cannot be freed."""
        _KEPT.extend(self._locks)
        self._locks.clear()

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().release()


def node_devices() -> tuple[str, ...]:
    """Names of the accelerators of this node that may be used; none without a driver.

    MBPO_DEVICES names them (`0,1`, or fake slots `fake:0,fake:1`); else the driver does, inside CUDA_VISIBLE_DEVICES.

    Raises:
        ConfigError: MBPO_DEVICES has another form.
        GpuUnavailable: a named accelerator is not there, or the driver does not answer.
    """
    return tuple(device.name for device in devices_here())


def devices_wanted(uses_policy: bool, policy_config: PolicyConfig | None, launch: LaunchConfig) -> int:
    """How many accelerators of this node one stage takes.

    Args:
        uses_policy: whether the stage runs a model.
        policy_config: how it runs it.
        launch: processes over all machines, one an accelerator. With MBPO_HOSTFILE, a DeepSpeed hostfile, this node
            takes its share of the file's first slots.

    Returns:
        The number; 0 for work that runs on the CPU, or on other machines only.

    Raises:
        GpuUnavailable: policy.device is cuda and there is no accelerator, or fewer are there than wanted.
        ConfigError: the hostfile is wrong, or has fewer slots than there are processes.
    """
    if not uses_policy or policy_config is None or policy_config.device == "cpu":
        return 0
    wanted = launch.processes
    if many_hosts():
        chosen = choose_hosts(launch.processes)
        wanted = chosen.get(this_host(chosen, node_name()) or "", 0)
    there = node_devices()
    if not wanted or (not there and policy_config.device == "auto"):
        return 0
    if not there:
        raise GpuUnavailable(
            f"policy.device is cuda and {node_name()} has no accelerator",
            expected="an NVIDIA driver that shows one",
            remedy="Use policy.device=auto or cpu to compute on the CPU; `mbpo doctor` says what is there.",
        )
    _expect(wanted, there)
    return wanted


@contextlib.contextmanager
def lease_devices(
    count: int, *, launch: LaunchConfig, log: Callable[[str], None], purpose: str = ""
) -> Iterator[DeviceLease]:
    """Have so many of this node's accelerators for oneself; all at once, so that two runs never wait for each other.

    A device that others hold, or whose memory somebody outside has, is waited for.

    Args:
        count: accelerators; 0 gives an empty lease at once.
        launch: how long to wait (seconds), and which share of a device's memory must be free.
        log: told at once what is waited for, and every 30 s.
        purpose: what for, shown to those who wait; e.g. "run demo, negatives".

    Yields:
        The lease. It ends with the block, but for processes that called `hold_leased` and are still there.

    Raises:
        GpuUnavailable: there are not so many, or none came free in time.
    """
    lease = _wait_for(devices_here(), count, launch, log, purpose) if count else DeviceLease(())
    try:
        yield lease
    finally:
        lease._release()


def hold_leased() -> None:
    """Hold the devices of MBPO_LEASED until this process ends; the first thing a worker does.

    Raises:
        GpuUnavailable: whoever leased them is gone, and another has them.
    """
    for key in filter(None, os.environ.get("MBPO_LEASED", "").split(",")):
        lock = DeviceLock(key)
        lock.join(os.environ.get("MBPO_LEASE_TOKEN", ""))
        _KEPT.append(lock)


def lease_own(place: int, *, launch: LaunchConfig, log: Callable[[str], None]) -> None:
    """Have one device of this node until this process ends: on machines where nobody leased for the workers.

    Args:
        place: this process's number among those of its machine, and so its device's.
        launch: how long to wait (seconds), and which share of the device's memory must be free.
        log: told what is waited for.

    Raises:
        GpuUnavailable: there are fewer devices than processes, or the device did not come free in time.
    """
    there = devices_here()
    if not there:  # the work runs on the CPU
        return
    _expect(place + 1, [device.name for device in there])
    _wait_for([there[place]], 1, launch, log, "a worker of another machine's run").keep()


def holders() -> dict[str, str]:
    """Who holds each device of this node; "" for a free one."""
    found = {}
    with mutex():
        for device in devices_here():
            lock = DeviceLock(device.key)
            found[device.name] = "" if lock.take() else str(lock.holder() or "somebody")
            lock.release()
    return found


def _wait_for(
    devices: Sequence[Device], count: int, launch: LaunchConfig, log: Callable[[str], None], purpose: str
) -> DeviceLease:
    from mbpo_core.store.lease import who  # the store needs pyarrow, which workers want to load later

    _expect(count, [device.name for device in devices])
    deadline, say_at = time.monotonic() + launch.device_wait_s, 0.0
    while True:
        holder = Holder(who(), purpose, time.time(), uuid.uuid4().hex)
        with mutex():
            locks, busy = _take(devices, count, launch.free_memory, holder)
        if locks:
            taken = tuple(device for device in devices if device.key in {lock.key for lock in locks})
            fresh = [lock for lock in locks if lock not in _KEPT]
            return DeviceLease(tuple(device.name for device in taken), taken, fresh, holder.token)
        now = time.monotonic()
        if now >= deadline:
            raise GpuUnavailable(
                f"no accelerator came free in {launch.device_wait_s} s: {'; '.join(busy)}",
                where=node_name(),
                expected=f"{count} free",
                remedy="Wait for or stop what holds it, and run again; launch.device_wait_s is how long to wait.",
            )
        if now >= say_at:
            log(f"waiting for {'; '.join(busy)}")
            say_at = now + _SAY_S
        time.sleep(min(_POLL_S, max(0.0, deadline - now)))


def _take(
    devices: Sequence[Device], count: int, free_memory: float, holder: Holder
) -> tuple[list[DeviceLock], list[str]]:
    """So many locks, or none and what is in the way; under the mutex. What this process keeps anyway comes first."""
    kept = {lock.key: lock for lock in _KEPT}
    taken: list[DeviceLock] = [kept[device.key] for device in devices if device.key in kept][:count]
    busy: list[str] = []
    with contextlib.ExitStack() as undo:
        for device in devices:
            if len(taken) == count:
                break
            if device.key in kept:
                continue
            lock = DeviceLock(device.key)
            undo.callback(lock.release)
            if reason := _in_the_way(device, lock, free_memory):
                busy.append(f"accelerator {device.name}, {reason}")
                lock.release()
            else:
                taken.append(lock)
        if len(taken) < count:
            return [], busy
        for lock in taken:
            lock.share(holder)
        undo.pop_all()
    return taken, []


def _in_the_way(device: Device, lock: DeviceLock, free_memory: float) -> str:
    """Why a device cannot be had now; "" once it is locked."""
    if not lock.take():
        return f"held by {lock.holder() or 'somebody'}"
    found = None if device.fake else memory(device)
    if found is not None and found.free < free_memory * found.total:
        return f"whose memory is not free: {found}"
    return ""


def _expect(count: int, there: Sequence[str]) -> None:
    if count > len(there):
        raise GpuUnavailable(
            f"{count} accelerators are wanted and {node_name()} has {len(there)}: {', '.join(there) or 'none'}",
            remedy="Lower launch.processes, or give more machines in MBPO_HOSTFILE.",
        )
