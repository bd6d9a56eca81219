"""Supervised fine-tuning on the chosen completions, the baseline that pairs must beat."""

from __future__ import annotations

import torch
from torch import Tensor


def sft_loss(policy_logprobs: Tensor, completion_mask: Tensor, weights: Tensor) -> Tensor:
    """Negative log-likelihood of the completions.

        loss = - sum_i u_i sum_t log pi(y_it)

    Args:
        policy_logprobs: (B, T) float with gradient, nats.
        completion_mask: (B, T) bool, True on completion tokens incl. EOS.
        weights: (B,) float, u_i of `completion_weights` (a group of one a sample).

    Returns:
        Scalar, nats: these rows' share of the step's loss (a sum, not a mean).
    """
    kept = torch.where(completion_mask, policy_logprobs, torch.zeros_like(policy_logprobs))
    return -(kept.sum(dim=1) * weights).sum()
