"""Identity Preference Optimization: a margin to reach, not to exceed."""

from __future__ import annotations

from torch import Tensor


def ipo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Squared distance of the margin from its target, so that a ranked pair stops pushing (and is pulled back).

        loss = ( chosen - rejected - 1 / (2 beta) )^2

    Args:
        chosen: (P,) float with gradient, log-ratio of y_w: a MEAN over its tokens, nats per token.
        rejected: (P,) likewise of y_l.
        beta: regularisation (tau of the paper); the target margin is 1 / (2 beta).

    Returns:
        (P,) float, (nats per token)^2, not reduced; 1 / (4 beta^2) where policy and reference agree.

    Source: arXiv:2310.12036, equation (17); mean over tokens as TRL's "ipo".
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2
