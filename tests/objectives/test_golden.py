"""Every golden value of the recipe, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.gain import information_gain, token_gains
from mbpo_core.objectives.grpo import clipped_surrogate
from mbpo_core.objectives.hybrid import hybrid_loss
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.ratios import shaped_probability


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


NEW = torch.tensor([[-1.0, -2.0, 0.0], [-2.0, -3.0, -0.5]], dtype=torch.float64)
OLD = torch.tensor([[-1.1, -2.3, 0.0], [-1.8, -3.4, -0.5]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, True]])
ADVANTAGES = vector(1.0, -1.0)


def objective(mode: str, *, clip_high: float = 0.2, constant: int = 1) -> float:
    """J of the recipe's pair under one normalisation."""
    weights = completion_weights([[2, 3]], [1.0], mode, constant_length=constant)  # type: ignore[arg-type]
    terms = hybrid_loss(
        NEW, OLD, NEW, ADVANTAGES, MASK, vector(*weights[0]), clip_low=0.2, clip_high=clip_high, beta=0.0
    )
    return -terms.loss.item()


def test_information_gain() -> None:
    seen, blind = vector(-0.2, -0.7, -0.1), vector(-2.0, -0.9, -3.0)
    assert information_gain(seen, blind).item() == pytest.approx(1.63333, abs=5e-6)
    assert information_gain(seen, seen).item() == 0
    assert token_gains(seen, blind).tolist() == pytest.approx([1.8, 0.2, 2.9])


def test_pair_advantages() -> None:
    rewards = vector(2.0, 0.0)[None]
    assert group_advantages(rewards, eps=0.0)[0].tolist() == pytest.approx([1.0, -1.0])
    assert group_advantages(rewards, scale_by_std=False)[0].tolist() == pytest.approx([1.0, -1.0])


def test_online_advantages() -> None:
    rewards = vector(2, 2, 1, 0, 0, 0, 1, 2)[None]
    assert rewards.mean().item() == 1
    assert rewards.std(correction=0).item() == pytest.approx(0.866025, abs=5e-7)
    expected = [1.1547, 1.1547, 0, -1.1547, -1.1547, -1.1547, 0, 1.1547]
    assert group_advantages(rewards, eps=0.0)[0].tolist() == pytest.approx(expected, abs=5e-5)


def test_tokens_of_the_clipped_surrogate() -> None:
    tokens = clipped_surrogate(torch.exp(NEW - OLD), ADVANTAGES, clip_low=0.2, clip_high=0.2)
    assert tokens[0, :2].tolist() == pytest.approx([1.105171, 1.2], abs=5e-7)
    assert tokens[1].tolist() == pytest.approx([-0.818731, -1.491825, -1.0], abs=5e-7)


def test_k3() -> None:
    assert k3(vector(-1.0), vector(-1.2)).item() == pytest.approx(0.0187308, abs=5e-8)


def test_objective_of_grpo() -> None:
    assert objective("sequence") == pytest.approx(0.0245335, abs=5e-8)


def test_objective_of_dr_grpo() -> None:
    assert objective("constant", constant=4) == pytest.approx(-0.125673, abs=5e-7)


def test_objective_of_dapo() -> None:
    assert objective("token", clip_high=0.28) == pytest.approx(-0.185077, abs=5e-7)
    assert objective("token") == pytest.approx(-0.201077, abs=5e-7)


def test_shaping() -> None:
    assert shaped_probability(vector(-1.0, -2.0)).tolist() == pytest.approx([0.786270, 0.575074], abs=5e-7)


def test_dpo() -> None:
    loss = dpo_loss(vector(-12.0), vector(-14.0), vector(-12.5), vector(-13.2), beta=0.1)
    assert loss.item() == pytest.approx(0.630258, abs=5e-7)
    same = dpo_loss(vector(-3.0), vector(-4.0), vector(-3.0), vector(-4.0), beta=0.1)
    assert same.item() == pytest.approx(math.log(2), abs=1e-12)
