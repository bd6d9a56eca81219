"""Truncated importance weights, by hand, against a slow loop, and as what they are for: an unbiased expectation."""

from __future__ import annotations

import math
import random

import pytest
import torch

from mbpo_core.objectives.hybrid import hybrid_loss
from mbpo_core.objectives.truncation import truncated_weights
from tests.objectives import oracle


def test_weights_by_hand() -> None:
    start = torch.tensor([[-0.5, -1.0, -3.0]], dtype=torch.float64, requires_grad=True)
    rollout = torch.tensor([[-0.5, -2.0, -1.0]], dtype=torch.float64)
    weights = truncated_weights(start, rollout, cap=2.0)
    assert weights.tolist() == [[1.0, 2.0, pytest.approx(math.exp(-2))]]  # e > 2 is capped; nothing bounds it below
    assert not weights.requires_grad
    assert truncated_weights(start, rollout, cap=10.0)[0, 1].item() == pytest.approx(math.e)


@pytest.mark.parametrize("cap", [1.5, 2.0])
def test_the_surrogate_is_weighed_and_the_kl_term_is_not(cap: float) -> None:
    """Against plain floats, over rows of uneven length whose padding is NaN."""
    numbers, lengths = random.Random(3), (4, 2, 3)
    rows = {name: [[-numbers.random() * 3 for _ in range(n)] for n in lengths] for name in ("pi", "pi0", "mu", "ref")}
    advantages, shares = [1.0, -0.6, 0.3], [0.2, 0.5, 0.3]
    expected, capped = 0.0, 0
    for i, share in enumerate(shares):
        for pi, start, mu, ref in zip(*(rows[name][i] for name in ("pi", "pi0", "mu", "ref")), strict=True):
            weight = min(math.exp(start) / math.exp(mu), cap)
            capped += weight == cap
            earned = weight * oracle.surrogate(math.exp(pi) / math.exp(start), advantages[i], 0.2, 0.28)
            expected -= share * (earned - 0.04 * oracle.k3(pi, ref))
    assert 0 < capped < sum(lengths)

    def padded(name: str) -> torch.Tensor:
        return torch.tensor([row + [math.nan] * (4 - len(row)) for row in rows[name]], dtype=torch.float64)

    terms = hybrid_loss(
        padded("pi"),
        padded("pi0"),
        padded("ref"),
        torch.tensor(advantages, dtype=torch.float64),
        torch.arange(4)[None] < torch.tensor(lengths)[:, None],
        torch.tensor(shares, dtype=torch.float64),
        clip_low=0.2,
        clip_high=0.28,
        beta=0.04,
        correction=truncated_weights(padded("pi0"), padded("mu"), cap=cap),
    )
    assert terms.loss.item() == pytest.approx(expected, abs=1e-12)


def test_without_the_cap_samples_of_another_distribution_give_the_policy_s_gradient() -> None:
    """The exact expectation over a vocabulary of five, of which the engine draws by another distribution."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.0, -0.4], dtype=torch.float64, requires_grad=True)
    engine = torch.tensor([0.9, -0.2, 0.1, -0.5, 0.4], dtype=torch.float64).log_softmax(-1)
    advantages = torch.tensor([1.0, -0.5, 0.2, 0.0, -0.9], dtype=torch.float64)
    policy = logits.log_softmax(-1)
    (wanted,) = torch.autograd.grad((policy.exp() * advantages).sum(), logits, retain_graph=True)

    def gradient(correction: torch.Tensor | None) -> torch.Tensor:
        loss = hybrid_loss(
            policy[:, None], policy.detach()[:, None], policy.detach()[:, None], advantages,
            torch.ones((5, 1), dtype=torch.bool), engine.exp(), clip_low=0.2, clip_high=0.2, beta=0.0,
            correction=correction,
        ).loss  # fmt: skip
        (found,) = torch.autograd.grad(-loss, logits, retain_graph=True)
        return found

    weights = truncated_weights(policy[:, None], engine[:, None], cap=1e9)
    assert torch.allclose(gradient(weights), wanted, atol=1e-12)
    assert not torch.allclose(gradient(None), wanted, atol=1e-2)
