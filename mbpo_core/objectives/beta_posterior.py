"""MoPPS: what is known of a prompt's success rate, without further rollouts."""

from __future__ import annotations


def update(alpha: float, beta: float, successes_share: float, samples: int, decay: float) -> tuple[float, float]:
    """The Beta posterior after one more group of rollouts, with older evidence fading towards the prior (1, 1).

        alpha <- (d alpha + (1 - d)) + (s k)
        beta  <- (d beta  + (1 - d)) + ((1 - s) k)

    The released code writes the sum before a conditional without parentheses, so that one sample resets both to 8.

    Args:
        alpha, beta: pseudo-counts of success and failure; (1, 1) for a prompt not seen yet.
        successes_share: s in [0, 1].
        samples: k, rollouts in the group.
        decay: d in [0, 1]; 1 forgets nothing (0.5 for a policy that changes fast).

    Returns:
        The new alpha and beta; the expected success rate is alpha / (alpha + beta).

    Source: arXiv:2507.04632; thu-rllab/MoPPS, mopps.py.
    """
    forgotten = 1 - decay
    return (
        decay * alpha + forgotten + successes_share * samples,
        decay * beta + forgotten + (1 - successes_share) * samples,
    )
