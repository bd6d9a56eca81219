"""How unsure the model is: of a token, and of what it means to say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError


def token_entropy(scores: Tensor) -> Tensor:
    """Entropy of each next-token distribution.

        H = - sum_v p_v log p_v,   p = softmax(scores)

    Args:
        scores: (..., V) float, logits or log-probs (softmax makes the same of both); -inf where a token is banned.

    Returns:
        (...) float, nats, in [0, log V].
    """
    entropies: Tensor = torch.special.entr(torch.softmax(scores, dim=-1)).sum(dim=-1)
    return entropies


def cluster_entropy(counts: Sequence[int]) -> float:
    """Semantic entropy: of the meanings of several sampled answers.

        H = - sum_i p_i log p_i,   p_i = counts_i / sum counts

    Args:
        counts: answers in each cluster of like meaning, >= 0; an empty cluster adds nothing.

    Returns:
        Nats, in [0, log(number of clusters)].

    Raises:
        ShapeError: no answers, or a negative count.

    Source: arXiv:2302.09664; MFPO's order from easy to hard, recipe 2.6 (B).
    """
    total = sum(counts)
    if total < 1 or min(counts) < 0:
        raise ShapeError(
            f"counts are {list(counts)}", where="objectives.cluster_entropy", expected="at least one answer, none < 0"
        )
    return sum(count / total * math.log(total / count) for count in counts if count)
