"""The hybrid objective: one clipped, KL-bound loss over offline pairs and online groups together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mbpo_core.objectives.cispo import cispo_surrogate
from mbpo_core.objectives.grpo import clipped_surrogate, clipped_tokens
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.ratios import importance_ratio, sequence_ratio, shaped_probability
from mbpo_core.objectives.soft_clip import soft_surrogate

Surrogate = Literal["token", "sequence", "soft", "cispo"]


class HybridLoss(NamedTuple):
    """The loss of some rows of a step, and what is worth watching about their tokens."""

    loss: Tensor  # scalar: these rows' share of the step's loss
    kl: Tensor  # (B, T) k3 in nats, zero where masked
    clipped: Tensor  # (B, T) bool: the clipped branch was taken (cispo: the weight capped), or sunk below max_drop


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
    surrogate: Surrogate = "token",
    correction: Tensor | None = None,
) -> HybridLoss:
    """Minus the hybrid objective, summed over the rows given.

        loss = - sum_i u_i sum_t { f(rho) - beta k3 }

        token      f = min[ rho A_i, clip(rho, 1 - clip_low, 1 + clip_high) A_i ]       (GRPO)
        sequence   the same with s_i = exp(mean_t log rho) for rho                      (GSPO)
        soft       f = 4 / tau sigmoid( tau (rho - 1) ) A_i                             (SAPO)
        cispo      f = stopgrad( min(rho, 1 + clip_high) ) A_i log pi                   (CISPO)

    A `correction` w_t multiplies f, not the KL term.

    u_i carries group weight and normalisation (`completion_weights`), so that the losses of all rows of a step
    add up to -J of recipe 1.6, equation (4). An offline pair is a group of two, an online group one of G;
    both go through this one function and differ in `old_logprobs` only. On policy (rho = 1) the value is about
    the KL term alone (but for soft and cispo), because advantages sum to zero: watch KL, clip fraction and gradient
    norm instead.

    With "sequence" normalisation u_i holds 1 / |y_i|, and the |y_i| equal terms of GSPO add up to s_i A_i; with any
    other a completion counts by its length. k3, `shaped` and `max_drop` stay per token.

    Args:
        policy_logprobs: (B, T) float with gradient, nats.
        old_logprobs: (B, T) float, nats: the ratio's denominator.
        reference_logprobs: (B, T) float, nats.
        advantages: (B,) float, one a completion.
        completion_mask: (B, T) bool, True on completion tokens incl. EOS.
        weights: (B,) float, u_i.
        clip_low, clip_high: ratio clip below and above 1.
        beta: weight of k3.
        shaped: use p / (p + gamma) A in place of the surrogate where A > 0 (offline mode (c)).
        max_drop: nats; where A < 0, a token this far below the reference is pushed no further (k3 still pulls it
            back). On policy the surrogate never saturates, so without it rejected tokens are driven to nothing
            and k3 = exp(drop) - drop - 1 explodes. 0 sets no bound.
        surrogate: which f.
        correction: (B, T) float, w_t of `truncated_weights`; None where the sampler's distribution is the policy's.

    Returns:
        The loss (a sum, not a mean), k3 and the clipped tokens.

    Source: MBPO arXiv:2506.08022, reconstructed in recipe 1.6; LUFFY arXiv:2504.14945 for `shaped`;
        the surrogates' own files.
    """
    # Padding may hold anything, NaN included; it is replaced before it can reach a gradient.
    policy, old, reference = (
        torch.where(completion_mask, logprobs, torch.zeros_like(logprobs))
        for logprobs in (policy_logprobs, old_logprobs, reference_logprobs)
    )
    sunk = torch.zeros_like(completion_mask)
    if max_drop > 0:
        sunk = (policy < reference - max_drop) & (advantages < 0)[:, None] & completion_mask
    # A sunk token counts in a sequence's ratio, but no gradient reaches it through there either.
    earned, clipped = _earned(
        surrogate,
        torch.where(sunk, policy.detach(), policy),
        old.detach(),
        advantages,
        completion_mask,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    if shaped:
        positive = (advantages > 0)[:, None]
        earned = torch.where(positive, shaped_probability(policy) * advantages[:, None], earned)
        clipped = clipped & ~positive
    if correction is not None:
        earned = earned * torch.where(completion_mask, correction, torch.zeros_like(correction))
    divergence = k3(policy, reference.detach())
    objective = torch.where(completion_mask, earned - beta * divergence, torch.zeros_like(policy))
    loss = -(objective.sum(dim=1) * weights).sum()
    return HybridLoss(loss, divergence.detach(), (clipped & completion_mask) | sunk)


def _earned(
    surrogate: Surrogate,
    policy: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """What each token earns and whether it was clipped; (B, T), or (B, 1) where a completion's tokens are alike."""
    ratio = sequence_ratio(policy, old, mask) if surrogate == "sequence" else importance_ratio(policy, old)
    if surrogate == "soft":
        return soft_surrogate(ratio, advantages), torch.zeros_like(mask)
    if surrogate == "cispo":
        return cispo_surrogate(policy, ratio, advantages, clip_high=clip_high), ratio.detach() > 1 + clip_high
    return (
        clipped_surrogate(ratio, advantages, clip_low=clip_low, clip_high=clip_high),
        clipped_tokens(ratio, advantages, clip_low=clip_low, clip_high=clip_high),
    )
