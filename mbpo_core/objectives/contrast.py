"""The image side of a preference: the same completion on the right image and on a wrong one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def image_loss(chosen: Tensor, chosen_wrong: Tensor, *, beta: float, cap: float = 0.0) -> Tensor:
    """Conditional preference: the chosen completion belongs to its own image rather than to the other.

        loss = - log sigmoid( beta min(chosen - chosen_wrong, cap) )

    The prompts differ, so DPO's partition functions do not cancel: a heuristic contrast, which `anchor_loss` steadies.

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w on its image, summed, nats.
        chosen_wrong: (P,) likewise of y_w on the wrong image.
        beta: temperature.
        cap: nats; a pair whose margin exceeds it has the constant loss -log sigmoid(beta cap) and no gradient.
            0 sets no bound.

    Returns:
        (P,) float, nats, not reduced; log 2 where policy and reference agree.

    Source: mDPO arXiv:2406.11839; caveat IC-VCO arXiv:2605.31312; the cap is ours.
    """
    margin = chosen - chosen_wrong
    return -F.logsigmoid(beta * (margin.clamp(max=cap) if cap > 0 else margin))


def anchor_loss(chosen: Tensor, *, beta: float, margin: float = 0.0) -> Tensor:
    """Keeps the chosen completion at least as likely as under the reference.

        loss = - log sigmoid( beta chosen - margin )

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w on its image, summed, nats.
        beta: temperature.
        margin: what the reward beta * chosen should exceed, reward units.

    Returns:
        (P,) float, nats, not reduced; log 2 at policy = reference and margin 0.

    Source: mDPO arXiv:2406.11839, anchored term.
    """
    return -F.logsigmoid(beta * chosen - margin)
