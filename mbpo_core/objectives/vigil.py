"""VIGIL: confidence in the chosen completion must come from seeing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def decoupling_loss(gain: Tensor, reference_gain: Tensor, *, beta: float, mean: float, std: float) -> Tensor:
    """Raises the chosen completion's image gain above the reference's, most where it is small.

        loss = g [ - log sigmoid( beta [gain - reference_gain] ) ],   g = stopgrad sigmoid( -(gain - mean) / std )

    Added to DPO with a weight (0.5 by default). The paper's term and gate are not public; this form is ours.

    Args:
        gain: (P,) float with gradient, Image Information Gain of y_w under the policy, nats per token.
        reference_gain: (P,) float, likewise under the reference.
        beta: temperature.
        mean, std: of reference gains over the pairs. At std <= 0 no pair stands out and every gate is 1/2.

    Returns:
        (P,) float, nats, not reduced.

    Source: after arXiv:2606.26387; recipe 3.
    """
    gate = torch.sigmoid(-(gain.detach() - mean) / std) if std > 0 else 0.5
    return -gate * F.logsigmoid(beta * (gain - reference_gain))
