"""The wiring of the method: which stage reads what, and what a rerun touches. No Prefect, no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import evaluation, pairs, rollouts, samples, training
from flows.pipeline import follow_method
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import MbpoError, StoreError
from mbpo_core.stage import PolicyRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import stale
from tasks.run import Choice, Run, expect, pointer_keys
from tests.flows import fakes


@pytest.fixture
def config() -> PipelineConfig:
    return PipelineConfig.model_validate({"run": "fake", "method": "mbpo", "rounds": 2, "baselines": ["sft", "dpo"]})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    fakes.install(monkeypatch)
    return Store(tmp_path / "runs")


@pytest.fixture
def done(store: Store, config: PipelineConfig) -> Run:
    """A run that has been through the whole method."""
    run = Run(config, store)
    follow_method(run)
    return run


def _policies(run: Run, key: str) -> dict[str, PolicyRef]:
    return dict(run.store.reader(run.latest(key)).manifest.policies)


def _inputs(run: Run, key: str) -> set[str]:
    return {ref.key for ref in run.store.reader(run.latest(key)).manifest.inputs.values()}


def test_every_pointer_is_set(done: Run, config: PipelineConfig) -> None:
    assert set(done.store.run("fake").pointers()) == set(pointer_keys(config)) == set(done.made())


def test_each_round_goes_on_from_the_last_and_the_reference_stays(done: Run) -> None:
    base, first, second = done.base_policy(), _policies(done, "training/0"), _policies(done, "training/1")
    assert first["policy"] == first["reference"] == second["reference"] == base
    assert second["policy"].artifact == done.latest("training/0")
    assert _policies(done, "rollouts/1")["policy"] == second["policy"]
    assert _policies(done, "rollouts/0")["policy"] == _policies(done, "negatives")["policy"] == base
    assert _inputs(done, "training/0") == {"pairs", "rollouts/0"}
    assert _inputs(done, "training/1") == {"pairs", "rollouts/1", "training/0"}


def test_baselines_train_on_the_same_pairs_from_the_base_model(done: Run) -> None:
    for name in ("sft", "dpo"):
        manifest = done.store.reader(done.latest(f"training/{name}")).manifest
        assert manifest.config == done.config.training.model_dump(mode="json") | {
            "objective": name,
            "use_online": False,
        }
        assert _inputs(done, f"training/{name}") == {"pairs"}
        assert manifest.identity["round"] == {"round_index": 0, "rounds": 1}
        assert _policies(done, f"training/{name}")["policy"] == done.base_policy()


def test_evaluation_asks_base_baselines_and_the_last_checkpoint(done: Run) -> None:
    policies = _policies(done, "evaluation")
    assert list(policies) == ["base", "sft", "dpo", "trained"]
    assert policies["trained"].artifact == done.latest("training/1")


def test_report_reads_everything(done: Run, config: PipelineConfig) -> None:
    assert _inputs(done, "report") == set(pointer_keys(config)) - {"report"}


def test_planning_makes_nothing(store: Store, config: PipelineConfig) -> None:
    dry = Run(config, store, perform=expect)
    follow_method(dry)
    assert {plan.status for plan in dry.plans} == {"runs"}
    assert store.runs() == []
    assert store.artifacts() == []


def test_a_second_run_is_all_cached(done: Run, config: PipelineConfig) -> None:
    again = Run(config, done.store, perform=expect)
    follow_method(again)
    assert {plan.status for plan in again.plans} == {"cached"}


def test_knobs_rerun_nothing_and_settings_only_what_they_concern(done: Run, config: PipelineConfig) -> None:
    def planned(section: str, **changes: object) -> list[str]:
        changed = config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})
        dry = Run(changed, done.store, perform=expect)
        follow_method(dry)
        return [plan.key for plan in dry.plans if plan.status != "cached"]

    assert planned("negatives", part_rows=7) == []
    assert planned("report", title="other") == ["report"]
    assert planned("evaluation", split="dev") == ["evaluation", "report"]
    assert planned("pairs", share=0.3)[0] == "pairs"


def test_one_stage_again_moves_its_own_pointer_and_names_what_is_stale(done: Run, config: PipelineConfig) -> None:
    before = done.store.run("fake").pointers()
    changed = config.model_copy(update={"training": config.training.model_copy(update={"beta": 0.5})})
    training.rerun(Run(changed, done.store), round_index=1)
    after = done.store.run("fake").pointers()
    assert [key for key in after if after[key] != before[key]] == ["training/1"]
    assert [entry.key for entry in stale(done.store, "fake")] == ["evaluation", "report"]
    assert done.store.is_committed("training", before["training/1"].digest)


def test_a_baseline_again_leaves_the_method_alone(done: Run, config: PipelineConfig) -> None:
    before = done.store.run("fake").pointers()
    changed = config.model_copy(update={"training": config.training.model_copy(update={"dpo_beta": 0.5})})
    training.rerun(Run(changed, done.store), round_index=1, target="dpo")
    after = done.store.run("fake").pointers()
    assert [key for key in after if after[key] != before[key]] == ["training/dpo"]


def test_every_stage_alone_is_cached_after_a_run(done: Run, config: PipelineConfig) -> None:
    dry = Run(config, done.store, perform=expect)
    samples.rerun(dry)
    pairs.rerun(dry)
    rollouts.rerun(dry, 1)
    training.rerun(dry, 0)
    training.rerun(dry, 1)
    evaluation.rerun(dry)
    assert {plan.key: plan.status for plan in dry.plans if plan.status != "cached"} == {}


def test_force_computes_the_stage_and_nothing_that_comes_out_the_same(done: Run, config: PipelineConfig) -> None:
    forced = Run(config, done.store, Choice(force=frozenset({"pairs"})))
    follow_method(forced)
    assert [plan.key for plan in forced.plans if plan.status != "cached"] == ["pairs"]


def test_offline_only_training_collects_no_rollouts(store: Store, config: PipelineConfig) -> None:
    settings = config.model_copy(update={"training": config.training.model_copy(update={"use_online": False})})
    run = Run(settings, store)
    follow_method(run)
    assert set(run.made()) == set(pointer_keys(settings))
    assert not [key for key in run.made() if key.startswith("rollouts")]
    with pytest.raises(MbpoError, match="use_online is off"):
        rollouts.rerun(run, 0)


def test_a_missing_input_names_the_command_that_makes_it(store: Store, config: PipelineConfig) -> None:
    with pytest.raises(StoreError, match=r"run 'fake' has no negatives yet .*mbpo negatives --run fake"):
        pairs.rerun(Run(config, store))


def test_a_wrong_model_is_refused_before_anything_runs(store: Store, config: PipelineConfig, tmp_path: Path) -> None:
    settings = config.model_copy(update={"policy": config.policy.model_copy(update={"model": str(tmp_path / "none")})})
    run = Run(settings, store)
    with pytest.raises(MbpoError, match="does not exist"):
        follow_method(run)
    assert run.plans == []
