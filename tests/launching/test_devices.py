"""Two runs never work on one device: real processes, fake slots, the kernel's own locks; and a stand-in for NVML."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mbpo_core.config import LaunchConfig, PolicyConfig
from mbpo_core.errors import ConfigError, GpuUnavailable
from mbpo_core.launching import devices
from mbpo_core.launching.devices import devices_wanted, holders, lease_devices, node_devices, node_folder

ROOT = Path(__file__).resolve().parents[2]
NOW = LaunchConfig(device_wait_s=0)
LONG_S = 60.0

LEASE = """
import json, os, subprocess, sys, time
from mbpo_core.config import LaunchConfig
from mbpo_core.launching.devices import lease_devices, lease_own, hold_leased
count, wait_s, form = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
say = lambda *words: print(json.dumps(words), flush=True)
if form == "remote":
    lease_own(count, launch=LaunchConfig(device_wait_s=wait_s), log=lambda line: say("log", line))
    say("own")
    sys.stdin.readline()
    sys.exit()
if form == "worker":
    hold_leased()
    say("works")
    time.sleep(600)
with lease_devices(
    count, launch=LaunchConfig(device_wait_s=wait_s), log=lambda line: say("log", line), purpose="run nightly, pairs"
) as lease:
    say("leased", *lease.devices)
    if form == "parent":
        worker = [sys.executable, sys.argv[0], "0", "0", "worker"]
        child = subprocess.Popen(worker, env={**os.environ, **lease.environment()})
    if form == "overlap":
        marks = [open(f"{os.environ['MARKS']}/{name}", "x") for name in lease.devices]
        time.sleep(0.2)
        for mark in marks:
            os.unlink(mark.name)
    else:
        sys.stdin.readline()
say("done")
"""


class Process:
    """A real process that leases, in a group of its own."""

    def __init__(self, folder: Path, count: int, wait_s: int, form: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARKS": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "lease.py"), str(count), str(wait_s), form],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def told(self) -> list[str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(LONG_S)}"
        words: list[str] = json.loads(line)
        return words

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill_tree(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A node of its own with two fake slots."""
    folder = tmp_path / "node"
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(folder))
    monkeypatch.setenv("MBPO_NODE", "node-a")
    monkeypatch.setenv("MBPO_DEVICES", "fake:0,fake:1")
    for name in ("CUDA_VISIBLE_DEVICES", "MBPO_LEASED", "MBPO_LEASE_TOKEN", "MBPO_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    kept: list[Any] = []
    monkeypatch.setattr(devices, "_KEPT", kept)
    yield folder
    for lock in kept:
        lock.release()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Starts a process that leases; whatever is left of it is killed after the test."""
    (tmp_path / "lease.py").write_text(LEASE, encoding="utf-8")
    started: list[Process] = []

    def begin(count: int, form: str = "alone", wait_s: int = 60) -> Process:
        started.append(Process(tmp_path, count, wait_s, form))
        return started[-1]

    yield begin
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.kill_tree()
        one.process.communicate()


def lease(count: int, launch: LaunchConfig = NOW) -> Any:
    return lease_devices(count, launch=launch, log=lambda line: None)


def free_again(count: int) -> None:
    """Fails if so many devices cannot be had within a long time."""
    with lease(count, LaunchConfig(device_wait_s=int(LONG_S))):
        pass


def test_leases_of_several_processes_never_overlap(start: Any) -> None:
    """Each marks its devices by a file that must not be there yet; some want one, some both."""
    for process in [start(count, "overlap") for count in (1, 2, 1, 2, 1)]:
        words = process.told()
        while words[0] != "done":
            words = process.told()
        assert process.process.wait(LONG_S) == 0


def test_who_waits_is_told_at_once_who_holds(start: Any) -> None:
    holder, waiting = start(2), None
    assert holder.told() == ["leased", "fake:0", "fake:1"]
    waiting = start(1)
    kind, line = waiting.told()
    assert kind == "log"
    assert line.startswith("waiting for accelerator fake:0, held by ")
    assert f"pid {holder.process.pid} (run nightly, pairs) since " in line
    holder.end()
    assert waiting.told()[0] == "leased"


def test_a_worker_keeps_the_lease_of_a_parent_that_is_gone(start: Any) -> None:
    parent = start(2, "parent")
    assert parent.told()[0] == "leased"
    assert parent.told() == ["works"]
    os.kill(parent.process.pid, signal.SIGKILL)
    parent.process.wait(LONG_S)
    assert set(holders()) == {"fake:0", "fake:1"}
    with pytest.raises(GpuUnavailable, match=f"held by .* pid {parent.process.pid} "), lease(1):
        pass
    parent.kill_tree()
    free_again(2)
    assert holders() == {"fake:0": "", "fake:1": ""}


def test_the_devices_of_a_killed_tree_are_free(start: Any) -> None:
    parent = start(2, "parent")
    assert parent.told()[0] == "leased"
    assert parent.told() == ["works"]
    parent.kill_tree()
    free_again(2)


def test_a_worker_that_comes_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with lease(1) as first:
        stale = first.environment()
    with lease(1):
        for name, value in stale.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(GpuUnavailable, match="before this worker started"):
            devices.hold_leased()


def test_nobody_waits_for_ever() -> None:
    told: list[str] = []
    with lease(2), pytest.raises(GpuUnavailable, match=r"no accelerator came free in 1 s: accelerator fake:0, held by"):  # noqa: SIM117
        with lease_devices(1, launch=LaunchConfig(device_wait_s=1), log=told.append):
            pass
    assert len(told) == 1


def test_two_are_taken_together_or_not_at_all() -> None:
    with lease(1), pytest.raises(GpuUnavailable, match="accelerator fake:0"), lease(2):
        pass
    free_again(2)


def test_an_error_gives_the_devices_back() -> None:
    with pytest.raises(ZeroDivisionError), lease(2):
        _ = 1 / 0
    free_again(2)


def test_a_kept_device_stays_this_process_own(start: Any) -> None:
    with lease(1) as first:
        first.keep()
    with lease(1) as again:
        assert again.devices == first.devices
    assert holders()["fake:0"]
    other = start(1)
    assert other.told() == ["leased", "fake:1"]


def test_more_than_there_are_is_refused_at_once() -> None:
    with pytest.raises(GpuUnavailable, match="3 accelerators are wanted and node-a has 2: fake:0, fake:1"), lease(3):
        pass


def test_fake_slots_hide_nothing_from_cuda() -> None:
    with lease(2) as both:
        environment = both.environment()
    assert environment.pop("MBPO_LEASE_TOKEN")
    assert environment == {"MBPO_LEASED": "fake:0,fake:1"}
    with lease(0) as none:
        assert none.devices == ()
        assert none.environment()["MBPO_LEASED"] == ""


def test_every_user_may_use_the_folder(node: Path) -> None:
    before = os.umask(0o077)
    try:
        with lease(1):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(node_folder().stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in node.iterdir()} == {0o666}


def test_a_planted_link_is_not_followed(node: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    (node_folder() / "device-fake_0.lock").symlink_to(victim)
    with pytest.raises(ConfigError, match="cannot be used"), lease(1):
        pass
    assert victim.read_text() == "keep me"


@pytest.mark.parametrize("setting", ["gpu0", "0,fake:1", "fake:0,fake:0", "fake:", "0;1", "0,,1", "-1"])
def test_a_wrong_list_of_devices_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPO_DEVICES", setting)
    with pytest.raises(ConfigError, match="MBPO_DEVICES"):
        node_devices()


@pytest.mark.parametrize(
    ("uses_policy", "device", "processes", "wanted"),
    [(True, "auto", 1, 1), (True, "cuda", 2, 2), (True, "cpu", 4, 0), (False, "cuda", 1, 0)],
)
def test_a_stage_takes_a_device_for_each_process(uses_policy: bool, device: Any, processes: int, wanted: int) -> None:
    launch = LaunchConfig(processes=processes)
    assert devices_wanted(uses_policy, PolicyConfig(device=device), launch) == wanted


def test_more_processes_than_devices_are_refused() -> None:
    with pytest.raises(GpuUnavailable, match="Lower launch"):
        devices_wanted(True, PolicyConfig(), LaunchConfig(processes=3))


def test_the_hostfile_gives_this_node_its_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are filled in the file's order; a machine that has none to give is asked for none."""
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("# two machines\nnode-b slots=4\nnode-a slots=2\n", encoding="utf-8")
    monkeypatch.setenv("MBPO_HOSTFILE", str(hostfile))
    wanted = {
        processes: devices_wanted(True, PolicyConfig(), LaunchConfig(processes=processes)) for processes in range(3, 7)
    }
    assert wanted == {3: 0, 4: 0, 5: 1, 6: 2}
    with pytest.raises(ConfigError, match="the hostfile has 6 slots"):
        devices_wanted(True, PolicyConfig(), LaunchConfig(processes=7))
    monkeypatch.setenv("MBPO_NODE", "node-b")
    with pytest.raises(GpuUnavailable, match="4 accelerators are wanted and node-b has 2"):
        devices_wanted(True, PolicyConfig(), LaunchConfig(processes=6))
    monkeypatch.setenv("MBPO_NODE", "node-c")
    assert devices_wanted(True, PolicyConfig(device="cuda"), LaunchConfig(processes=6)) == 0
    for wrong in ("", "node-a slots=two\n", "node-a slots=1\nnode-a slots=1\n"):
        hostfile.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"hostfile|wrong line"):
            devices_wanted(True, PolicyConfig(), LaunchConfig())


class FakeNvml(SimpleNamespace):
    """Stands in for pynvml: two cards of 80 GiB."""

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_DriverNotLoaded(NVMLError):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self) -> None:
        super().__init__(free={"GPU-aaa": 80, "GPU-bbb": 80}, running={}, broken=None, started=0)

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.broken
        self.started += 1

    def nvmlShutdown(self) -> None:
        self.started -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.free)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return list(self.free)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        if self.free[handle] is None:
            raise self.NVMLError_NotSupported
        return SimpleNamespace(free=self.free[handle] * 2**30, total=80 * 2**30)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return self.running.get(handle, [])


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    stand_in = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv("MBPO_DEVICES")
    yield stand_in
    assert stand_in.started == 0


def test_the_driver_names_the_devices(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_devices() == ("0", "1")
    for setting, names in {"1": ("1",), "GPU-b,0": ("1", "0"), "": (), "-1": (), "0,-1,1": ("0",)}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
        assert node_devices() == names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(GpuUnavailable, match="names accelerator 2, which is not there"):
        node_devices()


def test_named_devices_must_be_there(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "1")
    assert node_devices() == ("1",)
    monkeypatch.setenv("MBPO_DEVICES", "1,7")
    with pytest.raises(GpuUnavailable, match="accelerator 7, which is not there"):
        node_devices()


def test_no_driver_is_no_device_but_a_broken_one_is_an_error(nvml: FakeNvml) -> None:
    nvml.broken = nvml.NVMLError_LibraryNotFound()
    assert node_devices() == ()
    assert devices_wanted(True, PolicyConfig(device="auto"), LaunchConfig()) == 0
    with pytest.raises(GpuUnavailable, match=r"policy.device is cuda and node-a has no accelerator"):
        devices_wanted(True, PolicyConfig(device="cuda"), LaunchConfig())
    nvml.broken = nvml.NVMLError("Driver/library version mismatch")
    with pytest.raises(GpuUnavailable, match="version mismatch"):
        devices_wanted(True, PolicyConfig(device="auto"), LaunchConfig())


def test_real_devices_are_shown_to_cuda_by_the_drivers_numbers(nvml: FakeNvml) -> None:
    with lease(1), lease(1) as second:
        environment = second.environment()
    assert environment.pop("MBPO_LEASE_TOKEN")
    assert environment == {
        "MBPO_LEASED": "GPU-bbb",
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_container_that_counts_otherwise_meets_the_same_lock(nvml: FakeNvml) -> None:
    with lease(2):
        del nvml.free["GPU-aaa"]  # what is 1 outside is 0 in there
        with pytest.raises(GpuUnavailable, match="accelerator 0, held by"), lease(1):
            pass


def test_a_device_whose_memory_somebody_else_has_is_left_out(nvml: FakeNvml) -> None:
    nvml.free["GPU-aaa"] = 10
    nvml.running["GPU-aaa"] = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=70 * 2**30)]
    with lease(1) as one:
        assert one.devices == ("1",)
    nvml.free["GPU-bbb"] = 71
    taken = rf"accelerator 0, whose memory is not free: 70.0 of 80.0 GiB taken by pid {os.getpid()} \(.*70.0 GiB\)"
    with pytest.raises(GpuUnavailable, match=taken), lease(1):
        pass
    with lease(1, LaunchConfig(device_wait_s=0, free_memory=0.8)) as one:
        assert one.devices == ("1",)


def test_a_device_that_cannot_say_what_is_free_is_taken(nvml: FakeNvml) -> None:
    nvml.free["GPU-aaa"] = None
    with lease(1) as one:
        assert one.devices == ("0",)


def test_memory_that_comes_free_ends_the_wait(nvml: FakeNvml) -> None:
    nvml.free.update({"GPU-aaa": 0, "GPU-bbb": 0})

    def clear(line: str) -> None:
        assert "whose memory is not free" in line
        nvml.free["GPU-bbb"] = 80

    with lease_devices(1, launch=LaunchConfig(device_wait_s=60), log=clear) as one:
        assert one.devices == ("1",)


def test_workers_of_another_machine_take_their_own_devices(start: Any) -> None:
    """Where nobody leased for them: each its own, and the next run's wait for them."""
    first, second = start(0, "remote"), start(1, "remote")
    assert first.told() == second.told() == ["own"]
    assert all("a worker of another machine's run" in who for who in holders().values())
    late = start(1, "remote")
    assert late.told()[0] == "log"
    second.end()
    assert late.told() == ["own"]
    with pytest.raises(GpuUnavailable, match="3 accelerators are wanted"):
        devices.lease_own(2, launch=NOW, log=print)
