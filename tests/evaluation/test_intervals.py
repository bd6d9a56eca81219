"""Intervals and paired tests against published or hand-worked values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mbpo_core.errors import DataError
from mbpo_core.evaluation.intervals import mean_interval, student_t, wilson_interval
from mbpo_core.evaluation.paired import mcnemar_p, percentile_interval, ratio, resampled_sums


def test_wilson_against_its_definition() -> None:
    """The ends are the rates whose own score test just reaches z: |p - p0| = z sqrt(p0 (1 - p0) / n)."""
    low, high = wilson_interval(15, 50, 0.95)
    for end in (low, high):
        assert abs(0.3 - end) / math.sqrt(end * (1 - end) / 50) == pytest.approx(1.959964, abs=1e-6)
    assert low < 0.3 < high


def test_wilson_known_values() -> None:
    assert wilson_interval(15, 50) == pytest.approx((0.19105, 0.43751), abs=1e-4)
    low, high = wilson_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.27753, abs=1e-5)
    assert wilson_interval(10, 10)[1] == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_rate(successes: int, trials: int) -> None:
    with pytest.raises(DataError, match="make no rate"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize(
    ("freedom", "probability", "expected"),
    [
        (1, 0.975, 12.7062),
        (2, 0.975, 4.3027),
        (3, 0.95, 2.3534),
        (4, 0.975, 2.7764),
        (9, 0.995, 3.2498),
        (60, 0.975, 2.0003),
    ],
)
def test_student_t_table(freedom: int, probability: float, expected: float) -> None:
    assert student_t(probability, freedom) == pytest.approx(expected, abs=1e-4)


def test_mean_interval_of_three_seeds() -> None:
    """Mean 0.5, standard deviation 0.1 (divisor 2): 4.3027 x 0.1 / sqrt(3) = 0.24841."""
    mean, low, high = mean_interval([0.4, 0.5, 0.6])
    assert (mean, low, high) == pytest.approx((0.5, 0.25159, 0.74841), abs=1e-4)
    with pytest.raises(DataError, match="no spread"):
        mean_interval([0.4])


def test_resampling_matches_drawing_rows_one_by_one() -> None:
    """Sums of multinomial draws have the mean and covariance of drawing N rows with replacement."""
    rows = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [2, 3, 1, 2], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=np.float64)
    sums = resampled_sums(rows, 40_000, seed=3)
    n = len(rows)
    assert sums.mean(axis=0) == pytest.approx(n * rows.mean(axis=0), rel=0.02)
    assert np.cov(sums.T, bias=True) == pytest.approx(n * np.cov(rows.T, bias=True), abs=0.06)
    assert (resampled_sums(rows, 10, seed=3) == resampled_sums(rows, 10, seed=3)).all()
    assert (resampled_sums(rows, 10, seed=3) != resampled_sums(rows, 10, seed=4)).any()


def test_paired_draws_are_narrower_than_independent_ones() -> None:
    """Two policies that agree but on one question of ten: the difference hardly varies."""
    base = np.array([[1, 1]] * 5 + [[0, 1]] * 5, dtype=np.float64)
    other = base.copy()
    other[9, 0] = 1
    sums = resampled_sums(np.hstack([base, other]), 4000, seed=0)
    difference = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
    assert difference.min() >= 0
    assert difference.std() == pytest.approx(math.sqrt(0.1 * 0.9 / 10), rel=0.05)


def test_ratio_and_interval_without_numbers() -> None:
    assert np.isnan(ratio(np.array([0.0]), np.array([0.0]))).all()
    assert percentile_interval(np.array([np.nan]), 0.95) is None
    assert percentile_interval(np.linspace(0, 1, 101), 0.9) == pytest.approx((0.05, 0.95))


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 2 / 32), (1, 5, 2 * 7 / 64), (10, 2, 2 * (1 + 12 + 66) / 4096), (7, 8, 1.0)],
)
def test_mcnemar_by_counting_coin_tosses(lost: int, gained: int, expected: float) -> None:
    assert mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_of_many_questions_does_not_overflow() -> None:
    exact = 2 * sum(math.comb(4000, i) for i in range(1901)) / 2**4000
    assert mcnemar_p(1900, 2100) == pytest.approx(exact, rel=1e-9)
    assert mcnemar_p(0, 3000) == pytest.approx(0.0, abs=1e-300)
