"""Soft Adaptive Policy Optimization: a gate that fades instead of a clip that cuts."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_surrogate(
    ratio: Tensor, advantages: Tensor, *, temperature_positive: float = 1.0, temperature_negative: float = 1.05
) -> Tensor:
    """How much a token's change earns, less and less as the ratio leaves 1.

        f(rho) A,   f(rho) = 4 / tau sigmoid( tau (rho - 1) ),   tau by the sign of A

    The slope of f at 1 is 1: there the gradient is that of the unclipped surrogate.

    Args:
        ratio: (B, T) float, dimensionless.
        advantages: (B,) float, one a completion.
        temperature_positive: tau where A > 0.
        temperature_negative: tau elsewhere; larger, because pushing down is the less stable side.

    Returns:
        (B, T) float, to be maximised, not reduced.

    Source: SAPO arXiv:2511.20347 (not self-augmented preference optimization, arXiv:2405.20830); TRL's "sapo".
    """
    weight = advantages[:, None]
    temperature = torch.where(
        weight > 0, ratio.new_tensor(temperature_positive), ratio.new_tensor(temperature_negative)
    )
    return torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * weight
