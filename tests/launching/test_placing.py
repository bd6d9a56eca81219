"""Where a stage computes, and that the devices are had while it does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mbpo_core.config import LaunchConfig, PolicyConfig
from mbpo_core.errors import GpuUnavailable
from mbpo_core.execution import execute, plan
from mbpo_core.launching.placing import placed
from mbpo_core.launching.supervisor import Supervisor
from mbpo_core.launching.trees import TOKEN, new_tree
from mbpo_core.progress import NullProgress
from mbpo_core.store import Store
from mbpo_core.store.lease import process_started
from tests.execution.fakes import DRAWING, DrawingConfig
from tests.launching.conftest import SHARED_DRAWING, Recorder, wait_for


@pytest.mark.parametrize(
    ("settings", "devices", "workers"),
    [
        ({}, "", False),
        ({"processes": 2}, "", True),
        ({"launcher": "workers"}, "", True),
        ({"launcher": "inline", "processes": 2}, "", False),
        ({}, "fake:0", True),
    ],
)
def test_workers_where_there_is_a_device_or_more_than_one_process(
    store: Store, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], devices: str, workers: bool
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", devices)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch = LaunchConfig.model_validate(settings)
    for spec, expected in ((SHARED_DRAWING, workers), (DRAWING, False)):  # only what uses a policy needs a place
        planned = plan(store, spec, DrawingConfig(), {}, policy_config=PolicyConfig(), launch=launch)
        with placed(store, spec, planned, NullProgress()) as got:
            assert (got is not None) is expected
            assert got is None or got.processes == launch.processes


def test_what_a_killed_run_left_behind_is_ended_first(store: Store) -> None:
    orphaned = new_tree([]).model_copy(update={"started": "1"})  # a supervisor that is gone
    orphaned.remember()
    sleep = [sys.executable, "-c", "import time; time.sleep(120)"]
    left = subprocess.Popen(sleep, env={**os.environ, TOKEN: orphaned.token})
    try:
        assert wait_for(lambda: [process.pid for process in orphaned.processes()] == [left.pid], 10)
        planned, progress = plan(store, SHARED_DRAWING, DrawingConfig(), {}), Recorder()
        with placed(store, SHARED_DRAWING, planned, progress):
            assert process_started(left.pid) is None
    finally:
        left.kill()
        left.wait()
    assert progress.messages == [f"drawing: ended what a killed run had left behind: process {left.pid}"]


def test_no_accelerator_is_an_error_and_never_the_cpu(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MBPO_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    planned = plan(store, SHARED_DRAWING, DrawingConfig(), {}, policy_config=PolicyConfig(device="cuda"))
    with pytest.raises(GpuUnavailable, match=r"policy\.device is cuda"):
        execute(store, planned, NullProgress(), spec=SHARED_DRAWING)


def test_a_worker_that_sees_no_accelerator_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    workers = Supervisor(LaunchConfig(), devices=("0",), environment={"CUDA_VISIBLE_DEVICES": ""})
    with pytest.raises(GpuUnavailable, match="was given an accelerator and PyTorch sees none"):
        workers.run("share", folder, NullProgress())


def test_two_runs_that_need_the_one_device_never_overlap(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0")

    def run(shade: int) -> tuple[list[float], list[str]]:
        steps: list[float] = []
        progress = Recorder(on_step=lambda: steps.append(time.monotonic()))
        config = DrawingConfig(shade=shade, part_rows=1, count=6, pause_s=0.3)
        planned = plan(store, SHARED_DRAWING, config, {}, policy_config=PolicyConfig(device="cuda"))
        execute(store, planned, progress, spec=SHARED_DRAWING)
        return steps, progress.messages

    with ThreadPoolExecutor(2) as pool:
        (first, _), (second, messages) = sorted(pool.map(run, (1, 2)))
    assert len(first) == len(second) == 6
    assert first[-1] < second[0]
    assert "waiting for accelerator fake:0, held by" in messages[0]


_INLINE = """
import sys
from mbpo_core.config import LaunchConfig, PolicyConfig
from mbpo_core.execution import execute, plan
from mbpo_core.launching.devices import holders
from mbpo_core.launching.trees import TOKEN, new_tree
from mbpo_core.progress import NullProgress
from mbpo_core.store import Store
from mbpo_core.store.lease import process_started
from tests.execution.fakes import DrawingConfig
from tests.launching.conftest import SHARED_DRAWING
store = Store(sys.argv[1])
for shade in (1, 2):
    launch, policy = LaunchConfig(launcher="inline", device_wait_s=5), PolicyConfig(device="cuda")
    planned = plan(store, SHARED_DRAWING, DrawingConfig(shade=shade), {}, policy_config=policy, launch=launch)
    execute(store, planned, NullProgress(), spec=SHARED_DRAWING)
print(any(holders().values()))
"""


def test_computing_inline_keeps_the_device_until_the_process_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0")
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", _INLINE, store.root]
    assert subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout == "True\n"
    assert subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout == "False\n", (
        "both are there already; nothing is computed and no device is taken"
    )
