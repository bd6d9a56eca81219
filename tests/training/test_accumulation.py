"""Several backward passes, one update: none may be lost, and how a step is cut must not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.models.families import FROZEN_PARTS
from mbpo_core.models.policy import load_policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.objectives.passes import CHOSEN, REJECTED, SAMPLED
from mbpo_core.training import engine as engine_module
from mbpo_core.training.checkpoint import _read
from mbpo_core.training.data import GroupSet
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.job import JobRows
from mbpo_core.training.world import join_world
from tests.training.conftest import Trained, trained
from tests.training.rows import POLICY, job

Gradients = dict[str, Tensor]
UNCLIPPED = 1e9


def apart(one: Gradients, other: Gradients) -> float:
    """Largest difference, relative to the largest gradient."""
    assert one.keys() == other.keys()
    largest = max(tensor.abs().max().item() for tensor in other.values())
    return max((one[name] - other[name]).abs().max().item() for name in one) / largest


def losses_of(policy: Any, rows: JobRows) -> list[tuple[Any, float]]:
    """An offline and an online group with what their losses are multiplied by."""
    groups = GroupSet(policy, job(Path()).config)
    pair, rollout = groups.add_pairs(rows.pairs)[0], groups.add_rollouts(rows.rollouts)[-1]
    return [
        (groups.looks([pair], [CHOSEN, REJECTED], grad=True), 1.0),
        (groups.looks([rollout], [SAMPLED], grad=True), -2.0),
    ]


def engine_gradients(rows: JobRows, stage: int, which: list[int], *, managed: bool = False) -> Gradients:
    """Gradients that AdamW saw in one step after one backward pass a group (its first moment is a tenth of them)."""
    original = engine_module._deepspeed_config

    def wrong(*arguments: Any) -> dict[str, Any]:
        return {**original(*arguments), "managed_gradient_accumulation": True}

    with pytest.MonkeyPatch.context() as patch:
        if managed:
            patch.setattr(engine_module, "_deepspeed_config", wrong)
        policy = load_policy(resolve_model(POLICY), POLICY)
        config = job(Path(), zero_stage=stage, max_grad_norm=UNCLIPPED).config
        engine = TrainingEngine(policy, config, join_world(policy.device))
        losses = losses_of(policy, rows)
        for index in which:
            looks, factor = losses[index]
            (scored,) = engine.score(looks, looks[0].groups[0].temperature)
            engine.backward(scored.logprobs.sum() * factor)
        engine.step(1e-4)
        seen = {name: 10 * moment for name, moment in engine.moments("exp_avg")}
        engine.close()
        return seen


def torch_gradients(rows: JobRows) -> Gradients:
    """The same two losses in plain torch, one summed backward pass, no engine and no sharing of completions."""
    policy = load_policy(resolve_model(POLICY), POLICY)
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_(policy.family.part_of(name) not in FROZEN_PARTS["vision"])
    total = torch.zeros(())
    for (look,), factor in losses_of(policy, rows):
        (group,) = look.groups
        scored = group_logprobs(policy, [group], temperature=group.temperature, grad=True)[0]
        total = total + factor * torch.cat(scored).sum()
    total.backward()
    return {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_both_losses_train(rows: JobRows, stage: int) -> None:
    assert apart(engine_gradients(rows, stage, [0, 1]), torch_gradients(rows)) < 1e-5


@pytest.mark.parametrize("stage", [1, 2])
def test_the_wrong_mode_silently_drops_the_first_loss(rows: JobRows, stage: int) -> None:
    """DeepSpeed's default accumulation: this is what the engine's setting is there to avoid."""
    both = engine_gradients(rows, stage, [0, 1], managed=True)
    second = engine_gradients(rows, stage, [1], managed=True)
    assert apart(both, second) < 1e-5
    assert apart(both, torch_gradients(rows)) > 1e-2


def moments(result: Trained) -> Gradients:
    """AdamW's first moments at the end of a round."""
    return dict(_read(result.job.result / "state", "exp_avg"))


@pytest.mark.parametrize("normalization", ["sequence", "token", "constant"])
def test_one_times_eight_equals_eight_times_one(rows: JobRows, tmp_path: Path, normalization: str) -> None:
    settings = {"pairs_per_step": 4, "groups_per_step": 4, "max_grad_norm": UNCLIPPED, "normalization": normalization}
    one, eight = (trained(job(tmp_path / str(n), micro_groups=n, **settings), rows) for n in (1, 8))
    assert len(one.state.rows) == 1
    assert apart(moments(one), moments(eight)) < 1e-5
    assert one.state.rows[0].grad_norm == pytest.approx(eight.state.rows[0].grad_norm, rel=1e-5)


@pytest.mark.parametrize("stage", [0, 1])
def test_zero_stages_agree(rows: JobRows, plain: Trained, tmp_path: Path, stage: int) -> None:
    other = trained(job(tmp_path, zero_stage=stage), rows)
    assert apart(moments(other), moments(plain)) < 1e-3
    for ours, theirs in zip(other.state.rows, plain.state.rows, strict=True):
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
        assert ours.kl == pytest.approx(theirs.kl, rel=1e-3, abs=1e-9)
