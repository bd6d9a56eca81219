"""The objectives against the slow oracle: several groups of unequal size, uneven lengths, float64."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.objectives.advantages import AdvantageScale, group_advantages
from mbpo_core.objectives.entropy import token_entropy
from mbpo_core.objectives.gain import information_gain
from mbpo_core.objectives.hybrid import Surrogate, hybrid_loss
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.perception import perception_kl
from mbpo_core.objectives.ratios import sequence_ratio
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
        "advantages": oracle.advantages(rewards, scale="population", eps=1e-4),
    }


def padded(rows: list[list[float]], fill: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.float64)


@pytest.fixture(params=range(3))
def groups(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    rng = random.Random(request.param)
    return [random_group(rng, 2, 0.5), random_group(rng, 2, 0.5), random_group(rng, 5, 1.0), random_group(rng, 3, 1.0)]


def flat(groups: list[dict[str, Any]], name: str) -> Tensor:
    """(B, T) of all groups, padded."""
    return padded([row for group in groups for row in group[name]], GARBAGE)


def ours(
    groups: list[dict[str, Any]], normalization: Any, constant: int, shaped: bool, surrogate: Surrogate = "token"
) -> float:
    lengths = [[len(row) for row in group["policy"]] for group in groups]
    weights = completion_weights(
        lengths, [group["weight"] for group in groups], normalization, constant_length=constant
    )
    advantages = torch.cat(
        [group_advantages(torch.tensor([group["rewards"]], dtype=torch.float64))[0] for group in groups]
    )
    policy = flat(groups, "policy")
    terms = hybrid_loss(
        policy,
        flat(groups, "old"),
        flat(groups, "reference"),
        advantages,
        ~policy.isnan(),
        torch.tensor([w for group in weights for w in group], dtype=torch.float64),
        clip_low=0.2,
        clip_high=0.28,
        beta=0.04,
        shaped=shaped,
        surrogate=surrogate,
    )
    return terms.loss.item()


@pytest.mark.parametrize("normalization", ["sequence", "token", "constant"])
@pytest.mark.parametrize("shaped", [False, True])
def test_hybrid_objective(groups: list[dict[str, Any]], normalization: str, shaped: bool) -> None:
    expected = oracle.objective(
        groups, low=0.2, high=0.28, beta=0.04, normalization=normalization, constant=7, shaped=shaped
    )
    assert ours(groups, normalization, 7, shaped) == pytest.approx(-expected, abs=1e-12)


@pytest.mark.parametrize("surrogate", ["sequence", "soft", "cispo"])
@pytest.mark.parametrize("normalization", ["sequence", "token"])
@pytest.mark.parametrize("shaped", [False, True])
def test_other_surrogates(groups: list[dict[str, Any]], surrogate: Surrogate, normalization: str, shaped: bool) -> None:
    expected = oracle.objective(
        groups, low=0.2, high=0.28, beta=0.04, normalization=normalization, shaped=shaped, kind=surrogate
    )
    assert ours(groups, normalization, 1, shaped, surrogate) == pytest.approx(-expected, abs=1e-12)
    plain = oracle.objective(groups, low=0.2, high=0.28, beta=0.04, normalization=normalization, shaped=shaped)
    assert abs(expected - plain) > 1e-4


def test_sequence_ratio(groups: list[dict[str, Any]]) -> None:
    policy, old = flat(groups, "policy"), flat(groups, "old")
    expected = [
        math.prod(math.exp(p - o) for p, o in zip(*rows, strict=True)) ** (1 / len(rows[0]))
        for group in groups
        for rows in zip(group["policy"], group["old"], strict=True)
    ]
    found = sequence_ratio(policy, old, ~policy.isnan())
    assert found.shape == (len(expected), 1)
    assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


def test_perception_kl(groups: list[dict[str, Any]]) -> None:
    policy, masked = flat(groups, "policy"), flat(groups, "reference")
    kept = ~policy.isnan()
    expected = [oracle.k3(p, m) for p, m in zip(policy[kept].tolist(), masked[kept].tolist(), strict=True)]
    assert perception_kl(policy, masked)[kept].tolist() == pytest.approx(expected, abs=1e-12)
    assert max(expected) > 0.2
    assert perception_kl(policy, masked, cap=0.2)[kept].tolist() == pytest.approx([min(e, 0.2) for e in expected])


def test_advantages(groups: list[dict[str, Any]]) -> None:
    scales: tuple[AdvantageScale, ...] = ("population", "sample", "none")
    for group in groups:
        for scale in scales:
            expected = oracle.advantages(group["rewards"], scale=scale, eps=1e-4)
            rewards = torch.tensor([group["rewards"]], dtype=torch.float64)
            assert group_advantages(rewards, scale=scale)[0].tolist() == pytest.approx(expected, abs=1e-12)


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


def test_token_entropy() -> None:
    rows = [[[0.3, -2.0, 1.1, 0.0], [5.0, -float("inf"), 4.0, 1.0]], [[0.0, 0.0, 0.0, 0.0], [-9.0, 0.0, 3.0, 8.0]]]
    scores = torch.tensor(rows, dtype=torch.float64)
    expected = [[oracle.entropy(cell) for cell in row] for row in rows]
    for given in (scores, torch.log_softmax(scores, dim=-1)):
        torch.testing.assert_close(token_entropy(given), torch.tensor(expected, dtype=torch.float64))
