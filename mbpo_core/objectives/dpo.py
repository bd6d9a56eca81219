"""Direct Preference Optimization: the chosen completion over the rejected one, on the same image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Log-odds that the policy's implied reward ranks the pair rightly.

        loss = - log sigmoid( beta [chosen - rejected] )

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w: a SUM over its tokens, nats.
        rejected: (P,) likewise of y_l.
        beta: temperature of the implied reward.

    Returns:
        (P,) float, nats, one a pair, not reduced; log 2 where policy and reference agree.

    Source: arXiv:2305.18290, equation (7).
    """
    return -F.logsigmoid(beta * (chosen - rejected))
