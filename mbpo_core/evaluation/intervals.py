"""Intervals for a single number: a rate over questions, a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, mean, stdev

from mbpo_core.errors import DataError


def wilson_interval(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a rate.

        (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2/n),   p = successes / trials

    Unlike p -+ z s it stays inside [0, 1] and has a width at 0 and at 1.

    Args:
        successes: how many of the trials succeeded, 0 <= successes <= trials.
        trials: n > 0.
        confidence: level of the two-sided interval, in (0, 1).

    Raises:
        DataError: trials is not positive, or successes lies outside 0..trials.

    Source: Wilson 1927, JASA 22:209.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise DataError(
            f"{successes:g} successes of {trials:g} trials make no rate",
            where="wilson_interval",
            expected="0 <= successes <= trials and trials > 0",
            remedy="Leave out a metric that no question belongs to.",
        )
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, shrink = successes / trials, 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / shrink
    # At 0 and at 1 the bound is exact; rounding would leave 1e-18 of it.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of a few independent values and its t-interval.

        m -+ t(n - 1) s / sqrt(n),   s with divisor n - 1

    It is not clipped: three seeds near 1 may give an upper end above 1, which says how little three seeds tell.

    Args:
        values: at least two, e.g. one accuracy a seed.
        confidence: level of the two-sided interval, in (0, 1).

    Returns:
        (mean, low, high), in the unit of the values.

    Raises:
        DataError: fewer than two values.
    """
    if len(values) < 2:
        raise DataError(
            f"{len(values)} value has no spread",
            where="mean_interval",
            expected="two or more",
            remedy="Run more seeds.",
        )
    centre = mean(values)
    half = student_t(0.5 + confidence / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre, centre - half, centre + half


def student_t(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution for a probability in [0.5, 1).

    Found by bisection on the exact distribution function for whole degrees of freedom, so that no statistics library
    is needed for one number.

    Source: Abramowitz & Stegun 26.7.3 and 26.7.4.
    """
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _t_cdf(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0: a finite sum in cos^2(theta), theta = atan(t / sqrt(freedom))."""
    theta = math.atan2(t, math.sqrt(freedom))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = freedom % 2 == 1
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    inside = (theta + sine * total) * 2 / math.pi if odd else sine * total
    return (1 + inside) / 2
