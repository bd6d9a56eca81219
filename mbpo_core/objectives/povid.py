"""POVID, second stage: the policy's own slips on a noisy image as a further negative."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def povid_loss(chosen: Tensor, rejected: Tensor, slip: Tensor, *, beta: float) -> Tensor:
    """The mean of two DPO losses; the first stage is DPO alone.

        loss = - 1/2 log sigmoid( beta [chosen - rejected] ) - 1/2 log sigmoid( beta [chosen - slip] )

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w, summed, nats.
        rejected: (P,) likewise of y_l.
        slip: (P,) likewise of y~: at each position of y_w the likeliest token under the noisy image, scored on the
            clean one.
        beta: temperature.

    Returns:
        (P,) float, nats, not reduced; log 2 where policy and reference agree.

    Source: arXiv:2402.11411; YiyangZhou/POVID, tool/dpo_trainer_inherent.py.
    """
    return -(F.logsigmoid(beta * (chosen - rejected)) + F.logsigmoid(beta * (chosen - slip))) / 2
