"""The wiring of the methods: what each makes, and what they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import negatives, training
from flows.pipeline import follow_method
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import MbpoError
from mbpo_core.methods import METHODS
from mbpo_core.store import Store
from tasks.run import Run, expect, pointer_keys
from tests.flows import fakes

NEEDS_A_MODEL = {"mrpo", "clip_dpo"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    fakes.install(monkeypatch)
    return Store(tmp_path / "runs")


def follow(store: Store, method: str, **settings: object) -> Run:
    run = Run(PipelineConfig.model_validate({"run": method, "method": method, **settings}), store)
    follow_method(run)
    return run


def digests(run: Run) -> dict[str, str]:
    return {key: ref.digest for key, ref in run.made().items()}


@pytest.mark.parametrize("method", sorted(METHODS.keys() - NEEDS_A_MODEL))
def test_every_method_makes_what_its_pointers_name(store: Store, method: str) -> None:
    run = follow(store, method)
    assert list(run.made()) == list(pointer_keys(run.config))
    again = Run(run.config, store, perform=expect)
    follow_method(again)
    assert {plan.status for plan in again.plans} == {"cached"}


def test_methods_share_what_does_not_differ(store: Store) -> None:
    made = {name: digests(follow(store, name)) for name in ("mbpo", "dpo", "mdpo", "mfpo", "grpo", "mfpo_online")}
    for name in ("dpo", "mdpo", "mfpo", "mfpo_online"):
        assert [made[name][key] for key in ("samples", "negatives", "pairs")] == [
            made["mbpo"][key] for key in ("samples", "negatives", "pairs")
        ]
    assert made["grpo"]["rollouts/0"] == made["mbpo"]["rollouts/0"]
    assert made["grpo"].keys().isdisjoint({"negatives", "pairs"})  # nothing is mined that nobody trains on
    assert made["mfpo_online"]["negatives/images"] == made["mfpo"]["negatives/images"]
    assert made["mdpo"]["negatives/images"] != made["mfpo"]["negatives/images"]
    assert "negatives/images" not in made["dpo"]
    assert len({made[name]["training/0"] for name in made}) == len(made)
    assert "training/1" not in made["mfpo"]  # rounds are for what is made anew


def test_images_are_made_for_the_pairs_and_go_to_training(store: Store) -> None:
    run = follow(store, "mfpo")
    manifest = store.reader(run.latest("negatives/images")).manifest
    assert set(manifest.inputs) == {"samples", "pairs"}
    assert manifest.config["method"] == "key_region"
    assert set(store.reader(run.latest("training/0")).manifest.inputs) == {"pairs", "negatives"}


def test_remining_starts_each_round_from_its_policy(store: Store) -> None:
    run = follow(store, "mbpo_counterfactual", remine=True, rounds=2)
    assert {"negatives/0", "negatives/1", "pairs/1", "negatives/images/1"} <= run.made().keys()
    manifest = store.reader(run.latest("negatives/1")).manifest
    assert manifest.policies["policy"].artifact == run.latest("training/0")
    assert manifest.identity["round"] == {"round_index": 1, "rounds": 2}  # its own share of the samples
    assert set(store.reader(run.latest("training/1")).manifest.inputs) == {
        "pairs/1", "negatives", "rollouts", "previous",
    }  # fmt: skip
    dry = Run(run.config, store, perform=expect)
    negatives.rerun(dry)
    negatives.rerun(dry, images=True)
    training.rerun(dry, 1)
    assert {plan.key: plan.status for plan in dry.plans} == {
        "negatives/1": "cached", "negatives/images/1": "cached", "training/1": "cached",
    }  # fmt: skip


def test_images_alone_again(store: Store) -> None:
    run = follow(store, "mfpo")
    before = digests(run)
    changed = run.config.model_copy(update={"images": run.config.images.model_copy(update={"diffusion_step": 700})})
    negatives.rerun(Run(changed, store), images=True)
    after = store.run("mfpo").pointers()
    assert [key for key in after if after[key].digest != before[key]] == ["negatives/images"]
    with pytest.raises(MbpoError, match="no rejected images made for its pairs"):
        negatives.rerun(follow(store, "dpo"), images=True)


def test_mopps_goes_on_from_the_round_before(store: Store) -> None:
    run = follow(store, "mbpo_mopps", rounds=2)
    assert set(store.reader(run.latest("rollouts/1")).manifest.inputs) == {"samples", "rollouts"}
    assert set(store.reader(follow(store, "mbpo", rounds=2).latest("rollouts/1")).manifest.inputs) == {"samples"}
