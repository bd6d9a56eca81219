"""Comparing policies that answered the same questions: paired bootstrap and McNemar's test."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CELLS = 4_000_000  # numbers of a weight matrix that are alive at once


def resampled_sums(counts: Floats, resamples: int, seed: int) -> Floats:
    """Column sums of `resamples` bootstrap draws of the rows (questions), with replacement.

    One draw serves all columns, so columns of different policies stay paired by question. A draw matters only
    through how often each *distinct* row is in it; those numbers are multinomial, which makes this exact and cheap:
    K distinct rows instead of N questions.

    Args:
        counts: (N, C) float, what each question adds to each of C sums.
        resamples: R.
        seed: of numpy's PCG64; equal seeds, equal draws.

    Returns:
        (R, C) float sums.
    """
    distinct, times = np.unique(counts, axis=0, return_counts=True)
    rng, shares = np.random.default_rng(seed), times / len(counts)
    at_once = max(1, _CELLS // len(distinct))
    drawn = [
        rng.multinomial(len(counts), shares, size=min(at_once, resamples - start)) @ distinct
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(drawn).astype(np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise numerator / denominator; NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def percentile_interval(draws: Floats, confidence: float) -> tuple[float, float] | None:
    """The central share `confidence` of the draws that are numbers; None where none is."""
    numbers = draws[~np.isnan(draws)]
    if len(numbers) == 0:
        return None
    low, high = np.quantile(numbers, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that two policies are equally often right on the same questions.

        p = min(1, 2 P[X <= min(b, c)]),   X ~ Binomial(b + c, 1/2)

    Args:
        only_first: b, questions that only the first policy got right.
        only_second: c, questions that only the second got right.

    Returns:
        The p-value; 1 where no question tells the two apart.

    Source: McNemar 1947, in the exact binomial form.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    chosen = np.arange(1, fewer + 1)
    # log C(n, i) for i = 0..fewer, summed in logs because 2^n overflows from n = 1024.
    logs = np.concatenate([[0.0], np.cumsum(np.log(total - chosen + 1) - np.log(chosen))]) - total * np.log(2)
    peak = logs.max()
    return float(min(1.0, 2 * np.exp(peak) * np.exp(logs - peak).sum()))
