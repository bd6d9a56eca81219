"""AdaViP: one positive against a textual and a visual negative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def adavip_loss(chosen: Tensor, rejected: Tensor, chosen_wrong: Tensor, *, beta: float) -> Tensor:
    """Log-odds of the positive in a softmax over all three, which weighs the harder negative more by itself.

        loss = - log sigmoid( - log sum_{n in {rejected, chosen_wrong}} exp( beta [n - chosen] ) )
             = - log( e^{beta chosen} / (e^{beta chosen} + e^{beta rejected} + e^{beta chosen_wrong}) )

    Args:
        chosen: (P,) float with gradient, log-ratio of (y_w | image), summed, nats.
        rejected: (P,) likewise of (y_l | image).
        chosen_wrong: (P,) likewise of (y_w | wrong image).
        beta: temperature.

    Returns:
        (P,) float, nats, not reduced; log 3 where policy and reference agree.

    Source: arXiv:2504.15619.
    """
    negatives = torch.stack([rejected, chosen_wrong]) - chosen
    return -F.logsigmoid(-torch.logsumexp(beta * negatives, dim=0))
