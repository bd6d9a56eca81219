"""CHiP: response, image, segment and token level preferences in one sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch.nn.functional as F
from torch import Tensor


def chip_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_wrong: Tensor,
    kl_chosen: Tensor,
    kl_rejected: Tensor,
    *,
    beta: float,
    kl_weight: float = 0.1,
) -> Tensor:
    """Log-odds of the summed text, image and divergence margins.

        z = [chosen - rejected] + [chosen - chosen_wrong] - kl_weight ( kl_rejected - stopgrad(kl_chosen) )
        loss = - log sigmoid( beta z )

    This is the released code; the paper writes a weighted sum of separate losses.

    Args:
        chosen: (P,) float with gradient, log-ratio of (y_w | image), summed with `segment_weights`, nats.
        rejected: (P,) likewise of (y_l | image).
        chosen_wrong: (P,) likewise of (y_w | wrong image), with the weights of y_w.
        kl_chosen: (P,) float, sum over the positions of y_w of KL(pi_ref || pi) over the vocabulary, nats.
        kl_rejected: (P,) float with gradient, likewise of y_l.
        beta: temperature.
        kl_weight: of the divergence margin.

    Returns:
        (P,) float, nats, not reduced; log 2 where policy and reference agree.

    Source: arXiv:2501.16629; LVUGAI/CHiP, llava/train/llava_trainer.py; token level from TDPO arXiv:2404.11999.
    """
    divergence = kl_rejected - kl_chosen.detach()
    return -F.logsigmoid(beta * ((chosen - rejected) + (chosen - chosen_wrong) - kl_weight * divergence))


def segment_weights(
    chosen: Sequence[int], rejected: Sequence[int], *, weight: float = 4.0, min_match: int = 3
) -> tuple[list[float], list[float]]:
    """What each token's log-prob counts: more where the two completions differ.

    Tokens in a common block (of difflib's longest matches) of at least `min_match` tokens count 1, all others `weight`.

    Args:
        chosen, rejected: token ids of y_w and y_l.
        weight: of tokens that differ.
        min_match: shortest block that counts as common, tokens.

    Returns:
        One weight a token of `chosen`, and of `rejected`.

    Source: as `chip_loss`; RLHF-V arXiv:2312.00849.
    """
    weights = [weight] * len(chosen), [weight] * len(rejected)
    for block in SequenceMatcher(None, chosen, rejected, autojunk=False).get_matching_blocks():
        if block.size >= min_match:
            for side, start in zip(weights, (block.a, block.b), strict=True):
                side[start : start + block.size] = [1.0] * block.size
    return weights
