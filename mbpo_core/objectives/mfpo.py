"""MFPO: rewards of text, image and margin, weighed against each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mfpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_wrong: Tensor,
    *,
    beta: float,
    margin: float = 0.0,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
    margin_weight: float = 1.0,
) -> Tensor:
    """The weighted sum of a text, an image and a margin loss on rewards r = beta times the log-ratio.

        loss = text_weight L_text + image_weight L_image + margin_weight L_margin

        L_text   = - log sigmoid( r(y_w, m) - r(y_l, m) )
        L_image  = - log sigmoid( r(y_w, m) - r(y_w, m') )
        L_margin = - log sigmoid( r(y_w, m) - margin )

    At margin 0 and weights 1:1:1, the paper's best, this is mDPO's released loss; what differs is the wrong image m'
    (noise on key regions) and the order of the samples (easy to hard).

    Args:
        chosen: (P,) float with gradient, log-ratio of (y_w | m), summed, nats.
        rejected: (P,) likewise of (y_l | m).
        chosen_wrong: (P,) likewise of (y_w | m').
        beta: temperature.
        margin: eta, reward units.
        text_weight, image_weight, margin_weight: of the three losses.

    Returns:
        (P,) float, nats, not reduced.

    Source: arXiv:2410.15334, equations (5) to (7).
    """
    reward, reward_rejected, reward_wrong = beta * chosen, beta * rejected, beta * chosen_wrong
    text_loss = -F.logsigmoid(reward - reward_rejected)
    image_loss = -F.logsigmoid(reward - reward_wrong)
    margin_loss = -F.logsigmoid(reward - margin)
    return text_weight * text_loss + image_weight * image_loss + margin_weight * margin_loss
