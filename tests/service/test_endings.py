"""However a run ends, nothing of it stays: no process, no device lease, no half artifact; and the next run completes.

The one accelerator of this node is a fake slot, so every stage with a model runs in a worker process that leases it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mbpo_core.launching.trees import TOKEN
from mbpo_core.store import Store
from tests.service.conftest import Service, running_service

GONE_S = 15.0
NEXT_S = 30.0
# An attack that would take minutes on these few pictures.
SLOW = {"negatives": {"steps": 10_000}}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on a node with one device."""
    folder = tmp_path_factory.mktemp("node")
    with running_service(folder, MBPO_DEVICES="fake:0", MBPO_NODE_FOLDER=str(folder / "node")) as started:
        yield started


def _slow_run(node: Service, run: str) -> str:
    """A flow run that is in the middle of mining, in a worker process."""
    run_id = node.start_run("pipeline/manual", base="smoke", config=_settings(run, **SLOW))
    _until(lambda: any(TOKEN in _environment(process) for process in _processes(run_id)), 120)
    store = Store(node.store)
    _until(lambda: bool(store.files.walk("artifacts/negatives")), 60)
    time.sleep(3)  # some way into the attack
    return run_id


def _until(holds: Callable[[], bool], timeout_s: float) -> float:
    """Wait until something holds; returns how long it took, in seconds."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < timeout_s
        time.sleep(0.1)
    return time.monotonic() - begun


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except psutil.Error:
        return {}


def _processes(run_id: str) -> list[psutil.Process]:
    """Every process of a flow run: its own, the launcher, the ranks."""
    return [p for p in psutil.process_iter() if _environment(p).get("PREFECT__FLOW_RUN_ID") == run_id]


def _flow_process(run_id: str) -> psutil.Process:
    """The oldest one, which the Prefect worker started."""
    return min(_processes(run_id), key=lambda process: process.create_time())


def _rank(run_id: str) -> psutil.Process:
    ranks = [process for process in _processes(run_id) if "RANK" in _environment(process)]
    assert len(ranks) == 1
    return ranks[0]


def _leased(node: Service) -> dict[str, str]:
    """Who holds each device of the node, as `mbpo doctor` sees it."""
    from mbpo_core.launching.devices import holders

    names = ("MBPO_DEVICES", "MBPO_NODE_FOLDER")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: node.environment[name] for name in names})
    try:
        return holders()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _assert_gone(node: Service, run_id: str) -> None:
    """No process of the run, the device free, nothing half made to be seen."""
    _until(lambda: not _processes(run_id), GONE_S)
    _until(lambda: _leased(node) == {"fake:0": ""}, GONE_S)  # the kernel drops a lock last
    store = Store(node.store)
    made = [store.manifest(stage, digest) for stage, digest in store.artifacts() if stage == "negatives"]
    assert SLOW["negatives"]["steps"] not in [manifest.config["steps"] for manifest in made if manifest]


def _assert_next_completes(node: Service, run: str) -> None:
    """The same run with an attack of ordinary length."""
    run_id = node.start_run("pipeline/manual", base="smoke", config=_settings(run))
    node.wait_for(run_id, "COMPLETED", timeout_s=600)
    store = Store(node.store)
    for ref in store.run(run).pointers().values():
        assert store.check(ref.stage, ref.digest) is not None


def _settings(run: str, **more: Any) -> dict[str, Any]:
    """A run that shares nothing with those of other tests, because its seed is its own."""
    return {"run": run, "seed": zlib.crc32(run.encode()), **more}


def _worker(node: Service) -> psutil.Process:
    process = node.files.worker.process()
    assert process is not None
    return process


def test_cancelled_from_the_ui(node: Service) -> None:
    """The state is what the UI's button sets; another run waits meanwhile, and gets the device."""
    run_id = _slow_run(node, "cancelled")
    waiting = node.start_run("negatives/manual", run="cancelled", changes=["negatives.steps=3"])
    node.ask(f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    begun = time.monotonic()
    _assert_gone(node, run_id)
    node.wait_for(run_id, "CANCELLED", timeout_s=60)
    node.wait_for(waiting, "RUNNING", "COMPLETED", timeout_s=NEXT_S)
    assert time.monotonic() - begun < NEXT_S
    node.wait_for(waiting, "COMPLETED", timeout_s=300)
    _assert_next_completes(node, "cancelled")


def test_killed_flow_process(node: Service) -> None:
    run_id = _slow_run(node, "killed-flow")
    _flow_process(run_id).kill()
    _assert_gone(node, run_id)
    node.wait_for(run_id, "CRASHED", timeout_s=60)
    _assert_next_completes(node, "killed-flow")


def test_killed_rank(node: Service) -> None:
    """The stage fails and says why; what the rank logged last is on the flow run."""
    run_id = _slow_run(node, "killed-rank")
    _rank(run_id).kill()
    _assert_gone(node, run_id)
    ended = node.wait_for(run_id, "FAILED", timeout_s=60)
    assert "WorkerFailed" in ended["state"]["message"] or "workers ended" in ended["state"]["message"]
    notes = node.ask("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
    assert "mbpo-negatives-failure" in [note["key"] for note in notes]
    _assert_next_completes(node, "killed-rank")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_ended_worker_takes_its_children_along(node: Service, number: signal.Signals) -> None:
    run_id = _slow_run(node, f"ended-worker-{number}")
    _worker(node).send_signal(number)
    _assert_gone(node, run_id)
    node.wait_for(run_id, "CRASHED", "CANCELLED", timeout_s=180)
    _until(lambda: node.files.worker.process() is None, 60)
    node.up()
    _assert_next_completes(node, f"ended-worker-{number}")


def test_two_runs_never_share_the_device(node: Service) -> None:
    """One from the pool, one from a shell: at every look at most one tree of processes holds the device."""
    trees: list[set[str]] = []
    over, folder = threading.Event(), node.environment["MBPO_NODE_FOLDER"]

    def watch() -> None:
        while not over.wait(0.2):
            there = [_environment(process) for process in psutil.process_iter()]
            here = [found for found in there if found.get("MBPO_NODE_FOLDER") == folder]
            trees.append({found[TOKEN] for found in here if TOKEN in found})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_id = node.start_run("pipeline/manual", base="smoke", config=_settings("first"))
        smoke = ["mbpo", "run", "--config", "deployments/smoke.yaml"]
        printed = node.command(*smoke, "--set", "run=second", "--set", "seed=1")
        node.wait_for(run_id, "COMPLETED", timeout_s=600)
    finally:
        over.set()
        watcher.join()
    assert any(trees)
    assert max(len(found) for found in trees) == 1
    assert "Run second: held-out questions" in printed


def test_two_runs_of_one_stage(service: Service, tmp_path: Path) -> None:
    """One works; the other says for whom it waits, and takes what was made."""
    words = ["mbpo", "run", "--config", "deployments/smoke.yaml", "--set", "run=twice", "--set", "seed=2"]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    started: list[subprocess.Popen[Any]] = []
    try:
        for log in logs:
            with log.open("w", encoding="utf-8") as file:
                started.append(
                    subprocess.Popen(words, cwd=service.folder, env=service.environment, stdout=file, stderr=file)
                )
        assert [process.wait(600) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    texts = [log.read_text(encoding="utf-8") for log in logs]
    assert any("waiting for" in text and "pid" in text for text in texts)
    store = Store(service.store)
    for ref in store.run("twice").pointers().values():
        attempts = [name for name in store.files.names(store.base(ref.stage, ref.digest)) if name != "manifest.json"]
        assert len(attempts) == 1
