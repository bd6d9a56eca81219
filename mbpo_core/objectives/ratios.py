"""The ratio that weighs a token: how much likelier it is now than under whoever wrote it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

OfflineRatio = Literal["on_policy", "reference", "shaped"]

SHAPING = 0.1
"""gamma of LUFFY's shaping, probability units."""


def importance_ratio(policy_logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Probability now over probability then, per token.

        rho = exp(policy - old)

    With old = policy.detach() the value is 1 and the gradient is the policy gradient's.

    Args:
        policy_logprobs: (B, T) float, nats.
        old_logprobs: (B, T) float, nats, without gradient: recorded when the token was sampled (online), when
            the step began, or under the reference (offline).

    Returns:
        (B, T) float, dimensionless, not reduced.

    Source: GRPO arXiv:2402.03300; the offline choices are recipe 1.6 (a) and (b).
    """
    return torch.exp(policy_logprobs - old_logprobs)


def sequence_ratio(policy_logprobs: Tensor, old_logprobs: Tensor, completion_mask: Tensor) -> Tensor:
    """One ratio a completion: the geometric mean of its tokens' ratios.

        s_i = exp( mean_t (policy - old) )

    Args:
        policy_logprobs: (B, T) float with gradient, nats; every token of a completion gets s_i / |y_i| of it.
        old_logprobs: (B, T) float, nats, without gradient.
        completion_mask: (B, T) bool, True on completion tokens incl. EOS.

    Returns:
        (B, 1) float, dimensionless, not reduced; 1 for a row without tokens.

    Source: GSPO arXiv:2507.18071.
    """
    difference = policy_logprobs - old_logprobs
    total = torch.where(completion_mask, difference, torch.zeros_like(difference)).sum(dim=1, keepdim=True)
    return torch.exp(total / completion_mask.sum(dim=1, keepdim=True).clamp(min=1))


def offline_old_logprobs(
    mode: OfflineRatio, policy_logprobs: Tensor, reference_logprobs: Tensor, recorded: Tensor | None = None
) -> Tensor:
    """The denominator of an offline token's ratio, which no sampling policy recorded.

        (a) on_policy   policy.detach(), or what was recorded at the start of the step: as if just sampled
        (b) reference   the frozen reference: the clip then bounds the total drift of each token
        (c) shaped      as (a); `shaped_probability` replaces the ratio where the advantage is positive

    Args:
        mode: which of the three.
        policy_logprobs: (B, T) float, nats, now.
        reference_logprobs: (B, T) float, nats.
        recorded: (B, T) float, nats, at the start of the step; None on its first update.

    Returns:
        (B, T) float, nats, without gradient.

    Source: recipe 1.6; (a) as in OViP's GRPO baseline, arXiv:2505.15963.
    """
    if mode == "reference":
        return reference_logprobs.detach()
    return (policy_logprobs if recorded is None else recorded).detach()


def shaped_probability(policy_logprobs: Tensor, *, shaping: float = SHAPING) -> Tensor:
    """LUFFY's stand-in for the ratio of a token that another author wrote.

        f(p) = p / (p + gamma)

    Rare tokens of a good answer get a larger push than under p itself, and the push fades as p nears 1.

    Args:
        policy_logprobs: (B, T) float, nats.
        shaping: gamma, > 0.

    Returns:
        (B, T) float in (0, 1), not reduced.

    Source: LUFFY arXiv:2504.14945; recipe 4.7.
    """
    probability = torch.exp(policy_logprobs)
    return probability / (probability + shaping)
