"""Group advantages: how much better a completion did than its siblings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError

AdvantageScale = Literal["population", "sample", "none"]

EPS = 1e-4
"""Added to the group's spread, reward units; the recipe's golden values use 0."""


def group_advantages(rewards: Tensor, *, scale: AdvantageScale = "population", eps: float = EPS) -> Tensor:
    """Centre each completion's reward on its group, optionally dividing by the spread.

        A[p, g] = (r[p, g] - mean_g r[p, g]) / (sigma_p + eps)

    sigma_p is the group's standard deviation: with the population's (divisor G) a pair rewarded (2, 0) gets (+1, -1),
    with the sample's (divisor G - 1, as in TRL) (+0.71, -0.71). A group whose completions all earned the same reward
    has nothing to teach and gets exact zeros.

    Args:
        rewards: (P, G) float, one reward per completion, G >= 2.
        scale: which sigma_p; "none" leaves out the division (Dr. GRPO).
        eps: added to sigma_p, in reward units.

    Returns:
        (P, G) float advantages; every row sums to zero up to rounding.

    Raises:
        ShapeError: if rewards is not two-dimensional or G < 2.

    Source: GRPO arXiv:2402.03300, outcome supervision; unscaled form arXiv:2503.20783.
    """
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ShapeError(
            f"rewards have shape {tuple(rewards.shape)}",
            where="objectives.group_advantages",
            expected="(P, G) with G >= 2",
            remedy="An advantage compares the completions of one prompt; give one row a group.",
        )
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale != "none":
        centred = centred / (rewards.std(dim=1, correction=int(scale == "sample"), keepdim=True) + eps)
    # Rounding leaves a constant group at about 1e-8 instead of 0, and 0 / 0 at NaN where eps is 0.
    return torch.where(zero_variance(rewards)[:, None], torch.zeros_like(centred), centred)


def zero_variance(rewards: Tensor) -> Tensor:
    """(P,) bool: groups of `rewards` (P, G) whose completions all earned the same."""
    return (rewards == rewards[:, :1]).all(dim=1)
