"""DAPO's soft penalty for long answers."""

from __future__ import annotations


def overlong_penalty(length: int, limit: int, cache: float) -> float:
    """What an answer loses for coming near the length limit.

        0                                   length <= limit - cache
        ((limit - cache) - length) / cache  within the cache
        -1                                  length > limit

    Args:
        length: tokens of the answer, EOS included.
        limit: L_max, tokens.
        cache: L_cache, tokens before the limit over which the penalty grows; 0 leaves the step at the limit.

    Returns:
        In [-1, 0], to be added to a reward.

    Source: DAPO arXiv:2503.14476, soft overlong punishment; recipe 4.3.
    """
    free = limit - cache
    if length <= free:
        return 0.0
    return (free - length) / cache if length <= limit else -1.0
