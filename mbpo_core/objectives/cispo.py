"""CISPO: clip the weight of a token, not its gradient."""

from __future__ import annotations

from torch import Tensor


def cispo_surrogate(policy_logprobs: Tensor, ratio: Tensor, advantages: Tensor, *, clip_high: float) -> Tensor:
    """A policy gradient whose importance weight is capped; every token keeps a gradient.

        stopgrad( min(rho, 1 + clip_high) ) A log pi

    The value says nothing by itself, only its gradient does. TRL's `epsilon_high` is the cap itself: 1 + clip_high.

    Args:
        policy_logprobs: (B, T) float with gradient, nats.
        ratio: (B, T) float, dimensionless; its gradient is not used.
        advantages: (B,) float, one a completion.
        clip_high: how far the weight may rise above 1.

    Returns:
        (B, T) float, to be maximised, not reduced.

    Source: MiniMax-M1 arXiv:2506.13585; cap from above alone as ScaleRL arXiv:2510.13786 and TRL's "cispo".
    """
    return ratio.detach().clamp(max=1 + clip_high) * advantages[:, None] * policy_logprobs
