"""The objectives against the slow oracle: several groups of unequal size, uneven lengths, float64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.gain import information_gain
from mbpo_core.objectives.hybrid import hybrid_loss
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.sft import sft_loss
from tests.objectives import oracle

GARBAGE = float("nan")  # what padding may hold


def random_group(rng: random.Random, size: int, weight: float) -> dict[str, Any]:
    lengths = [rng.randint(1, 6) for _ in range(size)]
    rows = {name: [[-rng.uniform(0.05, 4) for _ in range(n)] for n in lengths] for name in ("old", "reference")}
    policy = [[o + rng.gauss(0, 0.4) for o in row] for row in rows["old"]]
    rewards = [float(rng.choice((0, 1, 2))) for _ in range(size)]
    rewards[0] = 3.0  # never of equal rewards
    return {
        "weight": weight,
        "policy": policy,
        **rows,
        "rewards": rewards,
        "advantages": oracle.advantages(rewards, scale=True, eps=1e-4),
    }


def padded(rows: list[list[float]], fill: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.float64)


@pytest.fixture(params=range(3))
def groups(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    rng = random.Random(request.param)
    return [random_group(rng, 2, 0.5), random_group(rng, 2, 0.5), random_group(rng, 5, 1.0), random_group(rng, 3, 1.0)]


def ours(groups: list[dict[str, Any]], normalization: Any, constant: int, shaped: bool) -> float:
    def flat(name: str) -> list[list[float]]:
        return [row for group in groups for row in group[name]]

    lengths = [[len(row) for row in group["policy"]] for group in groups]
    weights = completion_weights(
        lengths, [group["weight"] for group in groups], normalization, constant_length=constant
    )
    advantages = torch.cat(
        [group_advantages(torch.tensor([group["rewards"]], dtype=torch.float64))[0] for group in groups]
    )
    policy = padded(flat("policy"), GARBAGE)
    terms = hybrid_loss(
        policy,
        padded(flat("old"), GARBAGE),
        padded(flat("reference"), GARBAGE),
        advantages,
        ~policy.isnan(),
        torch.tensor([w for group in weights for w in group], dtype=torch.float64),
        clip_low=0.2,
        clip_high=0.28,
        beta=0.04,
        shaped=shaped,
    )
    return terms.loss.item()


@pytest.mark.parametrize("normalization", ["sequence", "token", "constant"])
@pytest.mark.parametrize("shaped", [False, True])
def test_hybrid_objective(groups: list[dict[str, Any]], normalization: str, shaped: bool) -> None:
    expected = oracle.objective(
        groups, low=0.2, high=0.28, beta=0.04, normalization=normalization, constant=7, shaped=shaped
    )
    assert ours(groups, normalization, 7, shaped) == pytest.approx(-expected, abs=1e-12)


def test_advantages(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        for scale in (True, False):
            expected = oracle.advantages(group["rewards"], scale=scale, eps=1e-4)
            rewards = torch.tensor([group["rewards"]], dtype=torch.float64)
            assert group_advantages(rewards, scale_by_std=scale)[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_dpo(groups: list[dict[str, Any]]) -> None:
    chosen, rejected = (
        {name: [group[name][side] for group in groups] for name in ("policy", "reference")} for side in (0, 1)
    )
    expected = oracle.dpo(chosen["policy"], rejected["policy"], chosen["reference"], rejected["reference"], beta=0.3)
    sums = [padded(side[name], 0.0).sum(1) for name in ("policy", "reference") for side in (chosen, rejected)]
    assert dpo_loss(*sums, beta=0.3).tolist() == pytest.approx(expected, abs=1e-12)


def test_sft(groups: list[dict[str, Any]]) -> None:
    rows = [group["policy"][0] for group in groups]
    weights = completion_weights([[len(row)] for row in rows], [1.0] * len(rows), "sequence")
    expected = -sum(sum(row) / len(row) for row in rows) / len(rows)
    policy = padded(rows, GARBAGE)
    loss = sft_loss(policy, ~policy.isnan(), torch.tensor(weights, dtype=torch.float64)[:, 0])
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_gain(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        seen, blind = (torch.tensor(group[name][0], dtype=torch.float64) for name in ("policy", "reference"))
        assert information_gain(seen, blind).item() == pytest.approx(oracle.gain(seen.tolist(), blind.tolist()))
