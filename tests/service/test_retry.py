"""A run that failed in the middle, tried again with the UI's Retry button: a worker takes it up where it stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from mbpo_core.store import Store
from tests.service.conftest import Service, running_service

# Twelve pictures in three parts, each of which takes long enough to be interrupted.
SLOW = {"run": "retried", "negatives": {"steps": 300, "batch_size": 1, "part_rows": 4}}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on a node with one fake device, so that stages run in processes that can be killed."""
    folder = tmp_path_factory.mktemp("retry")
    with running_service(folder, MBPO_DEVICES="fake:0", MBPO_NODE_FOLDER=str(folder / "node")) as started:
        yield started


def _finished_parts(store: Store) -> list[str]:
    return [path for path in store.files.walk("artifacts/negatives") if path.endswith(".json") and "/part-" in path]


def _kill_rank(run_id: str) -> None:
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get("PREFECT__FLOW_RUN_ID") == run_id and "RANK" in environment:
            process.kill()


def test_retry_reuses_what_is_finished(node: Service) -> None:
    run_id, store = node.start_run("pipeline/manual", base="smoke", config=SLOW), Store(node.store)
    deadline = time.monotonic() + 300
    while not _finished_parts(store):
        assert time.monotonic() < deadline, node.logs(run_id)[-20:]
        time.sleep(0.1)
    _kill_rank(run_id)
    node.wait_for(run_id, "FAILED", timeout_s=120)
    assert store.run("retried").get("negatives") is None
    finished = {path: store.files.read(path) for path in _finished_parts(store)}
    assert len(finished) < 3

    node.ask(f"/flow_runs/{run_id}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"})
    ended = node.wait_for(run_id, "COMPLETED", timeout_s=600)
    assert ended["run_count"] == 2

    notes: list[dict[str, Any]] = node.ask("/artifacts/filter", flow_runs={"id": {"any_": [run_id]}}, limit=200)
    plans = [note["data"] for note in notes if note["key"] == "mbpo-plan"]
    assert any("| samples | cached |" in plan and "| negatives | resumes after" in plan for plan in plans)
    assert any("ended" in note["data"] for note in notes if note["key"] == "mbpo-negatives-failure")
    states = [
        (run["name"].rpartition("-")[0], run["state_name"])
        for run in node.ask("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
    ]
    assert ("negatives", "Failed") in states
    assert ("negatives", "Completed") in states
    assert {name for name, state in states if state in ("Completed", "Cached")} >= {"samples", "pairs", "report"}
    ref = store.run("retried").pointers()["negatives"]
    assert store.check(ref.stage, ref.digest) is not None


def test_the_failure_was_told(node: Service) -> None:
    """After the run above: the event that automations forward is there."""
    named = {"event": {"name": ["mbpo.run.failed"]}}
    deadline = time.monotonic() + 60
    while not (events := node.ask("/events/filter", filter=named)["events"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert events[0]["resource"]["prefect.resource.id"] == "mbpo.run.retried"
    assert events[0]["payload"]["flow"] == "pipeline"
