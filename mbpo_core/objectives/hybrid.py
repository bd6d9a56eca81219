"""The hybrid objective: one clipped, KL-bound loss over offline pairs and online groups together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mbpo_core.objectives.grpo import clipped_surrogate, clipped_tokens
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.ratios import importance_ratio, shaped_probability


class HybridLoss(NamedTuple):
    """The loss of some rows of a step, and what is worth watching about their tokens."""

    loss: Tensor  # scalar: these rows' share of the step's loss
    kl: Tensor  # (B, T) k3 in nats, zero where masked
    clipped: Tensor  # (B, T) bool: the clipped branch was taken


def hybrid_loss(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    reference_logprobs: Tensor,
    advantages: Tensor,
    completion_mask: Tensor,
    weights: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    beta: float,
    shaped: bool = False,
    max_drop: float = 0.0,
) -> HybridLoss:
    """Minus the hybrid objective, summed over the rows given.

        loss = - sum_i u_i sum_t { min[ rho A_i, clip(rho, 1 - clip_low, 1 + clip_high) A_i ] - beta k3 }

    u_i carries group weight and normalisation (`completion_weights`), so that the losses of all rows of a step
    add up to -J of recipe 1.6, equation (4). An offline pair is a group of two, an online group one of G;
    both go through this one function and differ in `old_logprobs` only. On policy (rho = 1) the value is about
    the KL term alone, because advantages sum to zero: watch KL, clip fraction and gradient norm instead.

    Args:
        policy_logprobs: (B, T) float with gradient, nats.
        old_logprobs: (B, T) float, nats: the ratio's denominator.
        reference_logprobs: (B, T) float, nats.
        advantages: (B,) float, one a completion.
        completion_mask: (B, T) bool, True on completion tokens incl. EOS.
        weights: (B,) float, u_i.
        clip_low, clip_high: ratio clip below and above 1.
        beta: weight of k3.
        shaped: use f(p) A in place of the surrogate where A > 0 (offline mode (c)).
        max_drop: nats; where A < 0, a token this far below the reference is pushed no further (k3 still pulls it
            back). On policy the surrogate never saturates, so without it rejected tokens are driven to nothing
            and k3 = exp(drop) - drop - 1 explodes. 0 sets no bound.

    Returns:
        The loss (a sum, not a mean), k3 and the clipped tokens.

    Source: MBPO arXiv:2506.08022, reconstructed in recipe 1.6; LUFFY arXiv:2504.14945 for `shaped`.
    """
    # Padding may hold anything, NaN included; it is replaced before it can reach a gradient.
    policy, old, reference = (
        torch.where(completion_mask, logprobs, torch.zeros_like(logprobs))
        for logprobs in (policy_logprobs, old_logprobs, reference_logprobs)
    )
    ratio = importance_ratio(policy, old.detach())
    surrogate = clipped_surrogate(ratio, advantages, clip_low=clip_low, clip_high=clip_high)
    clipped = clipped_tokens(ratio, advantages, clip_low=clip_low, clip_high=clip_high) & completion_mask
    if shaped:
        positive = (advantages > 0)[:, None]
        surrogate = torch.where(positive, shaped_probability(policy) * advantages[:, None], surrogate)
        clipped = clipped & ~positive
    if max_drop > 0:
        sunk = (policy < reference - max_drop) & (advantages < 0)[:, None] & completion_mask
        surrogate = torch.where(sunk, surrogate.detach(), surrogate)
        clipped = clipped | sunk
    divergence = k3(policy, reference.detach())
    objective = torch.where(completion_mask, surrogate - beta * divergence, torch.zeros_like(surrogate))
    return HybridLoss(-(objective.sum(dim=1) * weights).sum(), divergence.detach(), clipped)
