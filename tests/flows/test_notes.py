"""What a flow run's page shows: plan, tables, links, what is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError
from mbpo_core.store import Store
from tests.flows import fakes

CONFIG = {"run": "noted", "method": "mbpo", "rounds": 1}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> Store:
    """A store of fake stages that flows find through the environment."""
    fakes.install(monkeypatch)
    fakes.install_parts(monkeypatch, "pairs")
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    return Store(tmp_path / "runs")


def notes_of(state: Any) -> dict[str, Any]:
    """The artifacts of a flow run, by key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter

    flow_run = {"any_": [state.state_details.flow_run_id]}
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=flow_run))
    return {artifact.key: artifact for artifact in found if artifact.key}


def test_a_dry_run_shows_the_plan_and_does_nothing(store: Store) -> None:
    from flows.pipeline import pipeline

    state = pipeline(config=PipelineConfig.model_validate(CONFIG), dry_run=True, return_state=True)
    assert state.result() is None
    notes = notes_of(state)
    assert list(notes) == ["mbpo-plan"]
    assert "| pairs | runs | MISSING, never made |" in notes["mbpo-plan"].data
    assert notes["mbpo-plan"].description == "Plan: 7 runs"
    assert store.runs() == store.artifacts() == []


def test_start_at_takes_the_stages_before_as_they_are(store: Store) -> None:
    from flows.pipeline import pipeline

    config = PipelineConfig.model_validate(CONFIG)
    with pytest.raises(Exception, match=r"run 'noted' has no samples yet"):
        pipeline(config=config, start_at="training")
    pipeline(config=config)
    before = store.run("noted").pointers()
    changed = PipelineConfig.model_validate(CONFIG | {"negatives": {"steps": 3}, "training": {"beta": 0.5}})
    state = pipeline(config=changed, start_at="training", return_state=True)
    plan = notes_of(state)["mbpo-plan"].data
    assert r"| training/0 | runs | CONFIG training.beta 0.04 → 0.5 |" in plan
    assert "negatives" not in plan.replace("inputs.negatives", "")
    after = store.run("noted").pointers()
    assert [key for key in after if after[key] != before[key]] == ["training/0", "evaluation", "report"]


def test_a_rerun_shows_tables_links_and_what_is_stale(store: Store) -> None:
    from flows.pairs import pairs
    from flows.pipeline import pipeline

    first = notes_of(pipeline(config=PipelineConfig.model_validate(CONFIG), return_state=True))
    assert "has no report yet; `mbpo report --run noted`" in first["mbpo-pairs-report"].data
    assert "#" not in first["mbpo-report-report"].data

    state = pairs(run="noted", changes=["pairs.share=0.25"], return_state=True)
    notes, made = notes_of(state), store.run("noted").pointers()["pairs"]
    assert set(notes) == {
        "mbpo-plan", "mbpo-pairs", "mbpo-pairs-rows", "mbpo-pairs-manifest", "mbpo-pairs-report", "mbpo-stale",
    }  # fmt: skip
    assert "CONFIG pairs.share 0.5 → 0.25" in notes["mbpo-plan"].data
    assert '"rows": 8' in notes["mbpo-pairs-rows"].data
    assert f"(file://{made.uri}/manifest.json)" in notes["mbpo-pairs-manifest"].data
    page = store.run("noted").pointers()["report"].uri
    assert f"(file://{page}/" in notes["mbpo-pairs-report"].data
    assert "report.html#pairs)" in notes["mbpo-pairs-report"].data
    stale = notes["mbpo-stale"].data
    assert "- training/0, made from an older pairs" in stale
    assert "mbpo training --run noted --round 0\nmbpo evaluation --run noted\nmbpo report --run noted" in stale


def test_a_stage_that_is_dry_moves_nothing(store: Store) -> None:
    from flows.pairs import pairs
    from flows.pipeline import pipeline

    pipeline(config=PipelineConfig.model_validate(CONFIG))
    before = store.run("noted").document()
    state = pairs(run="noted", mode="rerun", dry_run=True, return_state=True)
    assert state.result() is None
    assert "| pairs | runs | FORCED pairs |" in notes_of(state)["mbpo-plan"].data
    assert store.run("noted").document() == before


def test_a_wrong_form_is_refused_before_any_task(store: Store) -> None:
    from flows.pairs import pairs

    state = pairs(run="nobody", upstream="ffffffff", changes=["pairs.shares=1"], return_state=True)
    assert state.is_failed()
    assert notes_of(state) == {}
    with pytest.raises(ConfigError) as refused:
        state.result()
    assert "3 things are wrong with this request, pairs of run nobody" in str(refused.value)


def test_explain_and_gc_show_what_the_commands_print(store: Store) -> None:
    from flows.explain import explain
    from flows.gc import gc
    from flows.pipeline import pipeline

    pipeline(config=PipelineConfig.model_validate(CONFIG))
    state = explain(run="noted", return_state=True)
    assert "| pairs | cached |" in notes_of(state)["mbpo-plan"].data
    state = explain(run="noted", changes=["report.title=a | `b`"], return_state=True)
    assert r"CONFIG report.title MBPO → a \| \`b\` |" in notes_of(state)["mbpo-plan"].data
    state = explain(base="smoke", return_state=True)
    assert "Run smoke in " in notes_of(state)["mbpo-plan"].data.replace("\\", "")
    assert state.result()[0] == "samples: runs"

    state = gc(return_state=True)
    assert state.result() == []
    assert notes_of(state)["mbpo-gc"].description == "0 that no run needs, 0.0 MB; 0 deleted"
