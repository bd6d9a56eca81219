"""rDPO of Re-Align: DPO and an image preference against a retrieved image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rdpo_loss(chosen: Tensor, rejected: Tensor, chosen_wrong: Tensor, *, beta: float) -> Tensor:
    """mDPO without its anchor.

        loss = - log sigmoid( beta [chosen - rejected] ) - log sigmoid( beta [chosen - chosen_wrong] )

    Args:
        chosen: (P,) float with gradient, log-ratio of (y_w | image), summed, nats.
        rejected: (P,) likewise of (y_l | image).
        chosen_wrong: (P,) likewise of (y_w | retrieved similar image).
        beta: temperature.

    Returns:
        (P,) float, nats, not reduced; 2 log 2 where policy and reference agree.

    Source: arXiv:2502.13146; taco-group/Re-Align, rDPOtrainer.py.
    """
    return -F.logsigmoid(beta * (chosen - rejected)) - F.logsigmoid(beta * (chosen - chosen_wrong))
