"""However a stage in workers ends, nobody of its tree is left, its record is gone, and its devices are free."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from mbpo_core.config import LaunchConfig, PolicyConfig
from mbpo_core.errors import ConfigError, WorkerFailed
from mbpo_core.execution import StagePlan, execute, plan
from mbpo_core.launching.devices import holders
from mbpo_core.launching.hosts import choose_hosts
from mbpo_core.launching.reaping import reap
from mbpo_core.launching.supervisor import Supervisor
from mbpo_core.store import Store
from tests.execution.conftest import make
from tests.execution.fakes import STAGES, DrawingConfig
from tests.launching.conftest import SHARED_DRAWING, Recorder, tree_members, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

SLOW: dict[str, Any] = {"count": 400, "part_rows": 1, "pause_s": 0.5}

_FLOW = """
import sys
from mbpo_core.execution import execute
from mbpo_core.store import Store
from tests.execution.fakes import STAGES
from tests.launching.conftest import SHARED_DRAWING, Recorder
from tests.launching.test_supervisor import slow_plan
store = Store(sys.argv[1], stages=STAGES)
execute(store, slow_plan(store), Recorder(on_step=lambda: print("step", flush=True)), spec=SHARED_DRAWING)
"""


def slow_plan(store: Store) -> StagePlan:
    """A stage that takes minutes in two workers on two accelerators."""
    policy, launch = PolicyConfig(device="cuda"), LaunchConfig(processes=2)
    return plan(store, SHARED_DRAWING, DrawingConfig(**SLOW), {}, policy_config=policy, launch=launch)


def test_a_cancelled_stage_leaves_nobody_behind(
    store: Store, node_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0,fake:1")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "flow-7")
    seen: list[int] = []

    def cancel() -> None:
        seen.extend(tree_members(node_folder))
        (record,) = (node_folder / "trees").glob("*.json")
        tree = json.loads(record.read_text())
        assert (tree["supervisor"], tree["flow_run"], tree["devices"]) == (os.getpid(), "flow-7", ["fake:0", "fake:1"])
        assert all(holders().values()), "both devices are taken"
        raise KeyboardInterrupt

    planned = slow_plan(store)
    with pytest.raises(KeyboardInterrupt):
        execute(store, planned, Recorder(on_step=cancel), spec=SHARED_DRAWING)
    assert len(seen) >= 3, "the launcher and two workers"
    assert tree_members(node_folder) == []
    assert not list((node_folder / "trees").iterdir())
    assert wait_for(lambda: not any(holders().values()), 5)
    assert slow_plan(store).parts_done >= 1


def test_time_out_kills_and_shows_the_log(store: Store, node_folder: Path) -> None:
    launch = LaunchConfig(processes=1, launcher="workers", timeout_s=1)
    with pytest.raises(WorkerFailed, match=r"longer than launch.timeout_s = 1 s .*log"):
        make(store, SHARED_DRAWING, **SLOW, launch=launch)
    assert tree_members(node_folder) == []


def test_a_killed_supervisor_takes_its_tree_along(
    tmp_path: Path, node_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0,fake:1")
    flow = subprocess.Popen(
        [sys.executable, "-c", _FLOW, str(tmp_path / "store")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert flow.stdout is not None
        assert flow.stdout.readline() == b"step\n"
        assert len(tree_members(node_folder)) >= 3
        flow.send_signal(signal.SIGKILL)
        flow.wait()
        assert wait_for(lambda: not tree_members(node_folder), 15), "without anybody's help"
        assert wait_for(lambda: not any(holders().values()), 5), "the devices are free"
        assert reap() == []
        assert not list((node_folder / "trees").iterdir()), "the record is cleared away"
    finally:
        flow.kill()
        flow.wait()
    assert slow_plan(Store(tmp_path / "store", stages=STAGES)).parts_done >= 1


def test_a_launcher_that_cannot_start_is_an_error_with_its_log(
    store: Store, node_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.chdir(store.root if Path(store.root).exists() else node_folder.parent)
    monkeypatch.setattr(sys, "executable", str(node_folder.parent / "python"))
    (node_folder.parent / "python").write_text("#!/bin/sh\necho no such interpreter; exit 3\n")
    (node_folder.parent / "python").chmod(0o755)
    with pytest.raises(WorkerFailed, match=r"ended with code 3; unfinished: rank 0(.|\n)*no such interpreter"):
        make(store, SHARED_DRAWING, launch=LaunchConfig(launcher="workers"))
    assert not list((node_folder / "trees").iterdir())


def test_hosts_are_chosen_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts").write_text("# two machines\na slots=2\n\nb slots=4\n")
    monkeypatch.setenv("MBPO_HOSTFILE", str(tmp_path / "hosts"))
    assert choose_hosts(1) == {"a": 1}
    assert choose_hosts(5) == {"a": 2, "b": 3}
    with pytest.raises(ConfigError, match=r"launch.processes is 7, and the hostfile has 6 slots"):
        Supervisor(LaunchConfig(processes=7))


def test_several_machines_need_a_store_that_all_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts").write_text("a slots=1\n")
    monkeypatch.setenv("MBPO_HOSTFILE", str(tmp_path / "hosts"))
    own = type(SHARED_DRAWING)(**{**vars(SHARED_DRAWING), "shared": False})
    with pytest.raises(ConfigError, match=r"does not go with workers on several machines .*shared file system"):
        make(Store("memory://one-machine", stages=STAGES), own)


def test_a_machine_that_does_not_see_the_store_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "MBPO_HOSTFILE": str(tmp_path / "hosts"), "RANK": "0"}
    command = [sys.executable, "-m", "mbpo_core.worker", "share", str(tmp_path / "nowhere")]
    ended = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "expected a store on a file system that all machines of the hostfile share" in ended.stderr


def test_members_are_told_by_their_environment(node_folder: Path) -> None:
    """The helper that the tests above rely on sees what is there."""
    environment = {**os.environ, "MBPO_TREE": "x", "MBPO_NODE_FOLDER": str(node_folder)}
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    try:
        assert wait_for(lambda: tree_members(node_folder) == [sleeper.pid], 10)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not psutil.pid_exists(sleeper.pid)
