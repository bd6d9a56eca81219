"""mDPO: text preference, image preference and an anchor."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mdpo_loss(chosen: Tensor, rejected: Tensor, chosen_wrong: Tensor, *, beta: float, anchor: float = 0.0) -> Tensor:
    """Three log-odds: of the completion, of the image, and of the chosen reward being above its anchor.

        loss = - log sigmoid( beta [chosen - rejected] )
               - log sigmoid( beta [chosen - chosen_wrong] )
               - log sigmoid( beta chosen - anchor )

    Args:
        chosen: (P,) float with gradient, log-ratio of (y_w | image), summed, nats.
        rejected: (P,) likewise of (y_l | image).
        chosen_wrong: (P,) likewise of (y_w | wrong image); the paper crops 1 to 20 % of the image's area.
        beta: temperature.
        anchor: delta, reward units; 0 in the released code.

    Returns:
        (P,) float, nats, not reduced; 3 log 2 at policy = reference and anchor 0.

    Source: arXiv:2406.11839; luka-group/mDPO, mdpo_trainer.py.
    """
    text = F.logsigmoid(beta * (chosen - rejected))
    image = F.logsigmoid(beta * (chosen - chosen_wrong))
    return -text - image - F.logsigmoid(beta * chosen - anchor)
