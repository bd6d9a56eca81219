"""Direct Preference Optimization, the baseline on the same pairs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Log-odds that the policy's implied reward ranks the pair rightly.

        loss = - log sigmoid( beta [ (log pi(y_w) - log pi_ref(y_w)) - (log pi(y_l) - log pi_ref(y_l)) ] )

    Args:
        policy_chosen: (B,) float with gradient, log-prob of the whole completion: a SUM over its tokens, nats.
        policy_rejected: (B,) likewise.
        reference_chosen: (B,) float, nats.
        reference_rejected: (B,) float, nats.
        beta: temperature of the implied reward.

    Returns:
        (B,) float, nats, one a pair, not reduced; log 2 where policy and reference agree.

    Source: arXiv:2305.18290, equation (7).
    """
    margin = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)
