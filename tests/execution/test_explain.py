"""Runs as a whole: what would happen now, what is stale, where things come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import StoreError
from mbpo_core.execution import checkpoint_policy, plan, run_stage
from mbpo_core.explain import collect_plans, explain
from mbpo_core.progress import NullProgress
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import stale, trace
from tests.execution.fakes import ANSWERS, DRAWING, FITTING, AnswersConfig, DrawingConfig, FittingConfig


def _pipeline(store: Store, run: str, base: PolicyRef, **drawing: int) -> dict[str, ArtifactRef]:
    quiet = NullProgress()
    refs = {"drawing": run_stage(store, run, plan(store, DRAWING, DrawingConfig(**drawing), {}), quiet)}
    answered = plan(store, ANSWERS, AnswersConfig(), {"samples": refs["drawing"]})
    refs["answers"] = run_stage(store, run, answered, quiet)
    policy = base
    for index in range(2):
        planned = plan(
            store,
            FITTING,
            FittingConfig(),
            {"answers/0": refs["answers"]},
            {"policy": policy},
            PolicyConfig(),
            round_index=index,
            rounds=2,
        )
        refs[planned.key] = run_stage(store, run, planned, quiet)
        policy = checkpoint_policy(refs[planned.key], "trained")
    return refs


@pytest.fixture
def base(tmp_path: Path) -> PolicyRef:
    return PolicyRef(folder=str(tmp_path), digest="base")


def test_everything_is_cached_and_reuse_is_counted(store: Store, base: PolicyRef) -> None:
    refs = _pipeline(store, "r", base)
    told = explain(store, "r")
    assert [(planned.key, planned.status) for planned in told.plans] == [(key, "cached") for key in refs]
    assert told.seconds_saved == pytest.approx(sum(store.reader(ref).manifest.seconds for ref in refs.values()))
    assert told.accelerator_seconds_saved == 0
    assert (told.stale, told.lost) == ([], [])
    assert told.model_dump(mode="json")["seconds_saved"] == told.seconds_saved


def test_changed_settings_run_what_depends_on_them(store: Store, base: PolicyRef) -> None:
    _pipeline(store, "r", base)
    told = explain(store, "r", sections={"answers": AnswersConfig(format_reward=0.5)})
    assert [planned.status for planned in told.plans] == ["cached", "runs", "runs", "runs"]
    causes = [[f"{cause.kind} {cause.field}" for cause in planned.causes] for planned in told.plans]
    assert causes[1:] == [
        ["REWARD answers.format_reward"],
        ["INPUT inputs.answers/0"],
        ["INPUT inputs.answers/0", "MODEL policies.policy.digest"],
    ]


def test_another_base_model_is_a_model_cause(store: Store, base: PolicyRef) -> None:
    _pipeline(store, "r", base)
    told = explain(store, "r", policies={"base": base.model_copy(update={"digest": "changed"})})
    assert [planned.status for planned in told.plans] == ["cached", "cached", "runs", "runs"]


def test_a_rerun_of_one_stage_names_what_is_stale(store: Store, base: PolicyRef) -> None:
    before = _pipeline(store, "r", base)
    assert stale(store, "r") == []
    rerun = plan(store, ANSWERS, AnswersConfig(format_reward=0.5), {"samples": before["drawing"]})
    run_stage(store, "r", rerun, NullProgress())
    assert {entry.key: entry.because for entry in stale(store, "r")} == {
        "fitting/0": ["answers"],
        "fitting/1": ["answers", "fitting/0"],
    }
    after = store.run("r").pointers()
    assert {key for key in before if after[key] != before[key]} == {"answers"}, "only its own pointer moved"
    assert [planned.status for planned in explain(store, "r").plans] == ["cached", "cached", "runs", "runs"]


def test_a_rerun_that_comes_out_the_same_makes_nothing_stale(store: Store, base: PolicyRef) -> None:
    _pipeline(store, "r", base)
    run_stage(store, "r", plan(store, DRAWING, DrawingConfig(max_dropped_share=0.6), {}), NullProgress())
    assert stale(store, "r") == []


def test_staleness_spreads_through_unchanged_pointers(store: Store, base: PolicyRef) -> None:
    _pipeline(store, "r", base)
    run_stage(store, "r", plan(store, DRAWING, DrawingConfig(shade=77), {}), NullProgress())
    assert {entry.key: entry.because for entry in stale(store, "r")} == {
        "answers": ["drawing"],
        "fitting/0": ["answers"],
        "fitting/1": ["fitting/0", "answers"],
    }


def test_a_trace_leads_back_to_the_rows(store: Store, base: PolicyRef) -> None:
    refs = _pipeline(store, "r", base)
    steps = trace(store, refs["fitting/1"])
    assert [(step.depth, step.name) for step in steps] == [
        (0, "fitting/1"),
        (1, "policy"),
        (2, "answers/0"),
        (3, "samples"),
        (1, "answers/0"),
        (2, "samples"),
    ]
    store.files.remove(store.base("drawing", refs["drawing"].digest))
    assert [step.there for step in trace(store, refs["answers"])] == [True, False]
    assert explain(store, "r").lost == ["drawing"]


def test_a_pipeline_is_explained_before_it_ever_ran(store: Store) -> None:
    drawn = plan(store, DRAWING, DrawingConfig(), {})
    answered = plan(store, ANSWERS, AnswersConfig(), {"samples": drawn.expected()})
    told = collect_plans(store, "new", [drawn, answered])
    assert [planned.status for planned in told.plans] == ["runs", "runs"]
    assert told.seconds_saved == 0
    with pytest.raises(StoreError, match="there is no run 'new'"):
        explain(store, "new")
