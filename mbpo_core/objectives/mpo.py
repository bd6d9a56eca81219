"""Mixed Preference Optimization: which is better, how good each is, and how to write the better one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mbpo_core.objectives.dpo import dpo_loss


def bco_loss(chosen: Tensor, rejected: Tensor, shift: float | Tensor, *, beta: float) -> Tensor:
    """Each completion by itself: the reward of the chosen above the shift, that of the rejected below.

        loss = - log sigmoid( beta chosen - shift ) - log sigmoid( -(beta rejected - shift) )

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w, summed, nats.
        rejected: (P,) likewise of y_l.
        shift: float or (P,) without gradient, reward units: the running mean of all rewards so far. TRL's "bco_pair"
            had it once and now has 0.
        beta: temperature.

    Returns:
        (P,) float, nats, not reduced; 2 log 2 at policy = reference and shift 0.

    Source: BCO arXiv:2404.04656.
    """
    return -F.logsigmoid(beta * chosen - shift) - F.logsigmoid(-(beta * rejected - shift))


def mpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_nll: Tensor,
    shift: float | Tensor,
    *,
    beta: float,
    preference_weight: float = 0.8,
    quality_weight: float = 0.2,
    generation_weight: float = 1.0,
) -> Tensor:
    """The weighted sum of a preference, a quality and a generation loss.

        loss = w_p DPO(chosen, rejected) + w_q BCO(chosen, rejected, shift) + w_g chosen_nll

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w, summed, nats.
        rejected: (P,) likewise of y_l.
        chosen_nll: (P,) float with gradient, -log pi(y_w), a MEAN over its tokens, nats per token.
        shift: reward shift, as in `bco_loss`.
        beta: temperature.
        preference_weight, quality_weight, generation_weight: w_p, w_q, w_g.

    Returns:
        (P,) float, nats, not reduced.

    Source: MPO arXiv:2411.10442.
    """
    preference = dpo_loss(chosen, rejected, beta=beta)
    quality = bco_loss(chosen, rejected, shift, beta=beta)
    return preference_weight * preference + quality_weight * quality + generation_weight * chosen_nll
