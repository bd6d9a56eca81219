"""The k3 estimator of the KL divergence from the reference."""

from __future__ import annotations

import torch
from torch import Tensor


def k3(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """A per-token estimate of KL(policy || reference) that is never negative.

        k3 = exp(d) - d - 1,   d = reference - policy

    Its expectation under the policy is exactly the KL divergence. `expm1` keeps the small values that
    exp(d) - 1 would round away. Where the policy has given a token up (d large) it grows like exp(d):
    that barrier is what stops rejected tokens from being driven to nothing, and what makes it spike.

    Args:
        policy_logprobs: (B, T) float, nats.
        reference_logprobs: (B, T) float, nats.

    Returns:
        (B, T) float, nats, not reduced.

    Source: J. Schulman, "Approximating KL divergence" (2020); used so in GRPO arXiv:2402.03300.
    """
    difference = reference_logprobs - policy_logprobs
    return torch.expm1(difference) - difference
