"""Truncated importance weights: what to make of a rollout that another program sampled than the one that trains."""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_weights(start_logprobs: Tensor, rollout_logprobs: Tensor, *, cap: float) -> Tensor:
    """How much a sampled token counts, given that the engine's distribution was not quite the policy's.

        w_t = stopgrad( min( exp(start_t - rollout_t), cap ) )

    Engines compute in other kernels, another order and often another type than the trainer, so that the same weights
    give other probabilities. The surrogate's ratio is then taken against the trainer's own log-probs at the round's
    start, and w_t multiplies the surrogate: without the cap its expectation is that of the policy's own samples; the
    cap bounds what a token that the engine thought rare can do.

    Args:
        start_logprobs: (B, T) float, nats, the policy as the round began, by the trainer.
        rollout_logprobs: (B, T) float, nats, recorded by whatever sampled the tokens.
        cap: C, > 0; 2 in the literature.

    Returns:
        (B, T) float in (0, cap], dimensionless, without gradient; 1 where both agree.

    Source: F. Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025); TRL's
        `vllm_importance_sampling_correction`, mode token_truncate.
    """
    return torch.exp(start_logprobs - rollout_logprobs).clamp(max=cap).detach()
