"""Estimates of whole stages: worked out by hand for the large model, and knobs that do what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mbpo_core.config import PipelineConfig, load_config
from mbpo_core.memory.knobs import turns
from mbpo_core.memory.stages import RUNTIME, Estimator
from mbpo_core.memory.terms import GIB, Phase
from tests.memory.conftest import ROOT
from tests.memory.published import PARAMETERS

DEPLOYMENT = ROOT / "deployments" / "qwen2_5_vl_7b.yaml"
HEAD = 152_064 * 3_584


def terms(phase: Phase) -> dict[str, float]:
    return {term.name: term.size for term in phase.terms}


def changed(estimator: Estimator, *changes: str) -> Estimator:
    return replace(estimator, config=load_config(DEPLOYMENT, list(changes)))


def test_training_of_the_large_model_by_hand(estimator: Estimator) -> None:
    phases = {phase.name: terms(phase) for phase in estimator.training().phases}
    trained = PARAMETERS - estimator.architecture.parameters["vision"]
    found = phases["forward and backward"]
    assert found["weights"] == 2 * PARAMETERS
    assert found["optimizer"] == 12 * trained / 8
    assert found["gradients"] == 2 * 2 * trained / 8
    assert found["buffers"] == 2 * 500_000_000
    assert found["runtime"] == RUNTIME
    # 8 x 64 places of 152,064 ids are 297 MiB, below the limit: made whole, four of them at a time going backward.
    assert found["logits"] == 4 * 4 * 512 * 152_064 + 4 * 512 * 3_584 + 2 * HEAD
    assert phases["update"]["update"] == (4 + 4) * trained / 8
    # The second round has the base model beside the policy while it scores.
    assert phases["reference"]["reference"] == 2 * PARAMETERS


def test_rollouts_of_the_large_model_by_hand(estimator: Estimator) -> None:
    found = terms(estimator.rollouts().peak)
    # Keys and values of 4 heads of 128 in 28 layers: 4 prompts of 999 + 64 tokens, 8 x 64 tokens after each.
    assert found["keys and values"] == 2 * 2 * 4 * 128 * 28 * 4 * (1063 + 8 * 64) * 1.5
    assert found["weights"] == 2 * PARAMETERS


def test_which_stages_there_are_and_what_their_settings_do(estimator: Estimator) -> None:
    names = [made.stage for made in estimator.stages()]
    assert names == ["negatives", "pairs", "rollouts", "training", "evaluation"]
    offline = changed(estimator, "training.use_online=false")
    assert [made.stage for made in offline.stages()] == ["negatives", "pairs", "training", "evaluation"]
    attack = estimator.negatives().size
    half = changed(estimator, "negatives.batch_size=2").negatives().size
    fixed = 2 * PARAMETERS + RUNTIME
    assert half - fixed == pytest.approx((attack - fixed) / 2, rel=1e-6)
    noise = changed(estimator, "negatives.method=noise").negatives()
    assert [phase.name for phase in noise.phases] == ["answering"]


def test_less_is_kept_with_checkpointing_adapters_and_frozen_parts(estimator: Estimator) -> None:
    def activations(*changes: str) -> tuple[float, float]:
        phases = changed(estimator, *changes).training().phases
        found = terms(next(phase for phase in phases if phase.name == "forward and backward"))
        return found["activations, language"], found["activations, vision"]

    plain, adapters = activations(), activations("training.lora_rank=8")
    checkpointed = activations("training.gradient_checkpointing=true")
    assert checkpointed[0] < plain[0] / 10
    assert adapters[0] < plain[0]
    assert plain[1] == adapters[1] == 0
    assert activations("training.freeze=none")[1] > 0


def test_knobs_do_what_they_say(estimator: Estimator) -> None:
    device = 40 * GIB
    for stage in ("negatives", "training"):
        before = getattr(estimator, stage)().size
        assert before > device
        found = turns(estimator, stage, device)
        assert found[0].fits
        for turn in found:
            after = getattr(changed(estimator, turn.change), stage)().size
            assert turn.size == pytest.approx(after, rel=1e-9)
            assert turn.saving == pytest.approx(before - after, rel=1e-6)
            assert turn.fits == (after <= device)
    named = {turn.change.split("=")[0] for turn in turns(estimator, "training", device)}
    assert {"training.zero_stage", "training.offload", "training.lora_rank", "launch.processes"} <= named
    assert "training.gradient_checkpointing" in named


def test_a_knob_that_is_turned_is_not_named_again(estimator: Estimator) -> None:
    far = changed(
        estimator, "training.gradient_checkpointing=true", "training.zero_stage=3", "training.offload=all",
        "training.micro_groups=1", "training.lora_rank=8",
    )  # fmt: skip
    named = {turn.change.split("=")[0] for turn in turns(far, "training", GIB)}
    assert named <= {"policy.logits_mib", "launch.processes"}


def test_every_method_has_an_estimate(estimator: Estimator) -> None:
    from mbpo_core.methods import METHODS

    for method in METHODS:
        folders = {"training": {"second_reference": "x"}, "negatives": {"clip_model": "x"}}
        config = PipelineConfig.model_validate({"method": method, **folders})
        for made in replace(estimator, config=config).stages():
            assert made.size > 0
