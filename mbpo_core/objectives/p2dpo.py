"""P2-DPO: what augmenting the image gains, and how to weigh its two kinds of pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BASE, SWING, SOFTNESS = 0.5, 0.2, 0.1
"""The released code's weight of either kind, how far it may move, and the width of the move in CLIP ratio."""


def calibration_loss(
    policy_chosen: Tensor,
    policy_chosen_degraded: Tensor,
    reference_rejected: Tensor,
    reference_rejected_degraded: Tensor,
    *,
    beta: float,
) -> Tensor:
    """The policy's gain from the better view of y_w exceeds the reference's gain for y_l.

        loss = - log sigmoid( beta { [log pi(y_w | aug) - log pi(y_w | deg)]
                                     - [log pi_ref(y_l | aug) - log pi_ref(y_l | deg)] } )

    Added to the DPO loss of focus pairs with weight 0.3.

    Args:
        policy_chosen: (P,) float with gradient, log-prob (no ratio) of y_w given image and crop, summed, nats.
        policy_chosen_degraded: (P,) likewise given the image without that region.
        reference_rejected: (P,) float, log-prob of y_l under the reference given image and crop, summed, nats.
        reference_rejected_degraded: (P,) likewise given the image without that region.
        beta: temperature.

    Returns:
        (P,) float, nats, not reduced.

    Source: arXiv:2606.03376; ZrpChuang/P2-DPO, p2_dpo_loss.py.
    """
    gain = policy_chosen - policy_chosen_degraded
    return -F.logsigmoid(beta * (gain - (reference_rejected - reference_rejected_degraded)))


def focus_weights(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """How much focus and robust pairs count, by how much better the crop fits the text than the image does.

        w_focus = 0.5 + 0.2 tanh( (ratio - 1) / 0.1 ),   w_robust = 1 - w_focus

    Args:
        ratio: float of any shape, CLIP score of the crop over that of the image.

    Returns:
        The weight of the focus loss and of the robust loss, each of the ratio's shape.

    Source: as `calibration_loss`.
    """
    swing = SWING * torch.tanh((ratio - 1) / SOFTNESS)
    return BASE + swing, BASE - swing
