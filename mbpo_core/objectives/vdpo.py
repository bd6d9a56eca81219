"""V-DPO: log-probs guided away from what the policy would say blind."""

from __future__ import annotations

from torch import Tensor


def guided_logprobs(seeing: Tensor, blind: Tensor, *, guidance: float) -> Tensor:
    """What takes the place of the policy's log-probs in DPO; the reference's stay as they are.

        guided = g log pi(y | image, x) - (g - 1) stopgrad( log pi(y | blind, x) )

    g = 1 is DPO; the paper's optimum pi_ref (p(y | image, x) / p(y | x))^w exp(r / beta) has g = 1 - w, so g lies in
    (0, 1). g = 0, which the released script passes, leaves the detached term alone: nothing has a gradient.

    Args:
        seeing: float of any shape, with gradient, nats: tokens or their sums.
        blind: float of the same shape, nats: the same tokens without the image.
        guidance: g.

    Returns:
        Float of the same shape, nats, not reduced.

    Source: arXiv:2411.02712; YuxiXie/V-DPO, llava_trainer.py.
    """
    return guidance * seeing - (guidance - 1) * blind.detach()
