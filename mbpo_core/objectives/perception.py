"""PAPO: answers should change when the image is masked."""

from __future__ import annotations

import torch
from torch import Tensor


def perception_kl(policy_logprobs: Tensor, masked_logprobs: Tensor, *, cap: float = 0.0) -> Tensor:
    """A per-token estimate of KL(policy with the image || policy with a patch-masked image), on sampled tokens.

        min( exp(d) - d - 1, cap ),   d = masked - policy

    To be MAXIMISED, with a small weight (0.01). Both passes are the policy being trained and have a gradient.
    Unbounded, it is cheapest raised by making the masked pass sure of what the other is not. PAPO's remedy, penalties
    on the entropy of both passes, is not ours.

    Args:
        policy_logprobs: (B, T) float with gradient, nats.
        masked_logprobs: (B, T) float with gradient, nats: the same tokens given the masked image.
        cap: nats; a token whose estimate exceeds it has no gradient (TRL: 0.2). 0 sets no bound.

    Returns:
        (B, T) float, nats, never negative, not reduced.

    Source: arXiv:2507.06448.
    """
    difference = masked_logprobs - policy_logprobs
    divergence = torch.expm1(difference) - difference
    return divergence.clamp(max=cap) if cap > 0 else divergence
