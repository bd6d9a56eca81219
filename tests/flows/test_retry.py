"""A failed flow run tried again, as the Retry button does: finished stages are reused, the broken one goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import PipelineConfig
from mbpo_core.errors import WorkerFailed
from mbpo_core.store import Store
from tasks.run import pointer_keys
from tests.flows import fakes
from tests.flows.test_pipeline import task_states

CONFIG = {"run": "retried", "method": "mbpo", "rounds": 1}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> Store:
    """A store of fake stages, of which pairs writes parts."""
    fakes.install(monkeypatch)
    fakes.install_parts(monkeypatch, "pairs")
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    return Store(tmp_path / "runs")


@contextmanager
def _client() -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def _retry(flow: Any, flow_run_id: Any) -> Any:
    """What the button and then a worker do: the same flow run with the same parameters, from the top."""
    from prefect.flow_engine import run_flow
    from prefect.states import AwaitingRetry

    with _client() as client:
        client.set_flow_run_state(flow_run_id, AwaitingRetry(), force=True)
        flow_run = client.read_flow_run(flow_run_id)
    return run_flow(flow, flow_run=flow_run, parameters=flow_run.parameters, return_type="state")


def test_a_retry_reuses_finished_stages_and_finished_parts(store: Store) -> None:
    from prefect.artifacts import Artifact

    from flows.pipeline import pipeline

    fakes.FAIL_AT.append(1)
    config = PipelineConfig.model_validate(CONFIG)
    failed = pipeline(config=config, return_state=True)
    flow_run_id = failed.state_details.flow_run_id
    assert failed.is_failed()
    with pytest.raises(WorkerFailed):
        failed.result()
    states = task_states(flow_run_id, expected=3)
    assert states == {"samples": "Completed", "negatives": "Completed", "pairs": "Failed"}
    assert fakes.COMPUTED == [0, 1, 2, 3]

    note = Artifact.get("mbpo-pairs-failure")
    assert note
    assert note.flow_run_id == flow_run_id
    lines = str(note.data).splitlines()
    assert lines[-2] == "log line 79"
    assert lines[3] == "log line 30"
    assert "log line 29" not in lines

    done = _retry(pipeline, flow_run_id)
    assert done.is_completed(), done
    assert list(range(8)) == fakes.COMPUTED, "the part that was finished was not made again"
    with _client() as client:
        assert client.read_flow_run(flow_run_id).run_count == 2
    states = task_states(flow_run_id, expected=6)
    assert set(states.values()) <= {"Completed", "Cached"}
    assert states["pairs"] == "Completed"
    plan = Artifact.get("mbpo-plan")
    assert plan
    assert "| samples | cached |" in str(plan.data)
    assert "| pairs | resumes after 1 parts |" in str(plan.data)


def test_results_are_json(store: Store) -> None:
    """Of flows and of tasks: whatever Prefect kept of this run can be read without running code."""
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

    import flows.ablation
    import flows.explain
    import flows.gc
    import flows.smoke
    from flows import evaluation, negatives, pairs, report, rollouts, samples, training
    from flows.pipeline import pipeline

    every = [pipeline, flows.ablation.ablation, flows.explain.explain, flows.gc.gc, flows.smoke.smoke]
    modules = (samples, negatives, pairs, rollouts, training, evaluation, report)
    every += [getattr(module, module.__name__.rpartition(".")[2]) for module in modules]
    assert {flow.result_serializer for flow in every} == {"json"}

    state = pipeline.with_options(persist_result=True)(config=PipelineConfig.model_validate(CONFIG), return_state=True)
    assert state.is_completed()
    kept = [file for file in Path(PREFECT_LOCAL_STORAGE_PATH.value()).rglob("*") if file.is_file()]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in kept]
    assert len(records) >= len(pointer_keys(PipelineConfig.model_validate(CONFIG))) + 1, "tasks and the flow"
    serializers = {record["metadata"]["serializer"]["type"] for record in records if "metadata" in record}
    assert serializers == {"json"}
