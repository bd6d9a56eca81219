"""The clipped surrogate of GRPO, per token."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """How much a token's change earns, with no reward for moving further than the clip.

        min( rho A, clip(rho, 1 - clip_low, 1 + clip_high) A )

    Args:
        ratio: (B, T) float, dimensionless; (B, 1) for GSPO's ratio of the whole completion.
        advantages: (B,) float, one a completion.
        clip_low: allowed fall of the ratio below 1.
        clip_high: allowed rise above 1 (0.2 in GRPO, 0.28 in DAPO).

    Returns:
        Float of the ratio's shape, to be maximised, not reduced.

    Source: PPO arXiv:1707.06347; GRPO arXiv:2402.03300; unequal clips DAPO arXiv:2503.14476; GSPO arXiv:2507.18071.
    """
    weight = advantages[:, None]
    return torch.minimum(ratio * weight, ratio.clamp(1 - clip_low, 1 + clip_high) * weight)


def clipped_tokens(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Bool of the ratio's shape: where the clipped branch was taken, whose gradient is therefore zero."""
    weight = advantages[:, None]
    return ((ratio < 1 - clip_low) & (weight < 0)) | ((ratio > 1 + clip_high) & (weight > 0))
