"""Flows under Prefect: its cache shows what the store has, and never the other way round."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import DataError, LeaseHeld
from mbpo_core.store import Store
from tasks.run import pointer_keys
from tests.flows import fakes

CONFIG = {"run": "fake", "method": "mbpo", "rounds": 1, "baselines": ["dpo"]}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> Store:
    """A store of fake stages that flows find through the environment."""
    fakes.install(monkeypatch)
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    return Store(tmp_path / "runs")


def task_states(flow_run_id: Any, expected: int) -> dict[str, str]:
    """State name of each task run of a flow run, by task run name without its digest; of two by one name, the later.

    The server writes task runs from a queue of events, some time after the flow has ended: ask until all are final.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [flow_run_id]}))
            final = [run for run in runs if run.state is not None and run.state.is_final()]
            if len(final) >= expected or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    runs.sort(key=lambda run: run.expected_start_time)
    return {run.name.rpartition("-")[0]: run.state_name for run in runs}


def _run(config: PipelineConfig, force: list[str] | None = None) -> tuple[dict[str, str], Any]:
    """Task states and flow state of one pipeline run."""
    from flows.pipeline import pipeline

    state = pipeline(config=config, force=force or [], return_state=True)
    return task_states(state.state_details.flow_run_id, expected=len(pointer_keys(config))), state


def test_first_run_completes_second_is_cached_and_the_store_decides(store: Store) -> None:
    config = PipelineConfig.model_validate(CONFIG)
    keys = {key.replace("/", "-") for key in pointer_keys(config)}

    states, _ = _run(config)
    assert states == dict.fromkeys(keys, "Completed")

    states, _ = _run(config)
    assert states == dict.fromkeys(keys, "Cached")

    # Prefect still remembers a result; the store has lost the artifact, and that decides.
    gone = store.run("fake").pointers()["pairs"]
    shutil.rmtree(Path(gone.uri))
    states, _ = _run(config)
    assert [key for key, name in states.items() if name == "Completed"] == ["pairs"]
    assert store.run("fake").pointers()["pairs"] == gone

    states, _ = _run(config, force=["negatives"])
    assert [key for key, name in states.items() if name == "Completed"] == ["negatives"]


def test_each_stage_leaves_a_note_on_the_flow_run(store: Store) -> None:
    from prefect.artifacts import Artifact

    _run(PipelineConfig.model_validate(CONFIG | {"seed": 5}))
    note = Artifact.get("mbpo-training-dpo")
    assert note
    assert "### training/dpo: runs" in str(note.data)
    assert "MISSING, never made" in str(note.data)


def test_a_stage_flow_reruns_from_the_recorded_settings(store: Store) -> None:
    from flows.negatives import negatives

    _run(PipelineConfig.model_validate(CONFIG | {"negatives": {"steps": 3}}))
    before = store.run("fake").pointers()
    made = negatives(run="fake", changes=["negatives.epsilon=0.05"])
    after = store.run("fake").pointers()
    assert [key for key in after if after[key] != before[key]] == ["negatives"]
    settings = store.reader(made).manifest.config
    assert (settings["epsilon"], settings["steps"]) == (0.05, 3)


def test_only_errors_that_pass_by_themselves_are_tried_again() -> None:
    from prefect.states import Failed

    from tasks.prefect_stage import _is_transient

    assert _is_transient(None, None, Failed(data=LeaseHeld("another worker is writing")))
    assert not _is_transient(None, None, Failed(data=DataError("an unreadable file")))


def test_commands_go_through_prefect_and_stop_at_it_when_all_is_cached(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line around the flows; what is printed of results is tested with real ones."""
    monkeypatch.setattr("flows.showing.show_results", lambda store, run: print(f"results of {run}"))
    config = tmp_path / "my.yaml"
    config.write_text("run: typed\nmethod: mbpo\nrounds: 1\n", encoding="utf-8")

    first = CliRunner().invoke(app, ["run", "--config", str(config)])
    assert first.exit_code == 0, first.output
    assert "MISSING" in first.output

    rerun = CliRunner().invoke(app, ["training", "--run", "typed", "--set", "training.beta=0.02"])
    assert rerun.exit_code == 0, rerun.output
    assert "CONFIG training.beta 0.04 → 0.02" in rerun.output
    assert "Now stale: evaluation (made from an older training/0)" in rerun.output
    assert "mbpo evaluation --run typed && mbpo report --run typed" in rerun.output

    back = CliRunner().invoke(app, ["run", "--config", str(config), "--force", "report"])
    assert back.exit_code == 0, back.output
    assert "FORCED report" in back.output

    part = CliRunner().invoke(app, ["run", "--config", str(config), "--start-at", "evaluation", "--force", "report"])
    assert part.exit_code == 0, part.output
    assert "│ evaluation" in part.output
    assert "│ training" not in part.output

    before = Store(store.root).run("typed").pointers()["negatives"]
    named = ["pairs", "--run", "typed", "--upstream", before.digest[:8], "--mode", "rerun"]
    again = CliRunner().invoke(app, named)
    assert again.exit_code == 0, again.output
    assert "FORCED pairs" in again.output

    monkeypatch.setattr("flows.pipeline.pipeline", None)  # from here on, starting the flow would fail
    again = CliRunner().invoke(app, ["run", "--config", str(config)])
    assert again.exit_code == 0, again.output
    assert "everything is cached" in again.output
    assert "results of typed" in again.output

    dry = CliRunner().invoke(app, ["negatives", "--run", "typed", "--set", "negatives.steps=2", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "CONFIG negatives.steps 10 → 2" in dry.output
    explained = CliRunner().invoke(app, ["explain", "--run", "typed"])
    assert "runs" not in explained.output.split("what happens")[1]
