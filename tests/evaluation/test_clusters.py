"""The crossed bootstrap: against every possible draw, against known variances, and what nested factors come to."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mbpo_core.evaluation.clusters import clustered_draws
from mbpo_core.evaluation.paired import resampled_sums

RESAMPLES = 20_000


def columns(*factors: list[int]) -> np.ndarray:
    return np.array(factors, dtype=np.int64).T


def test_moments_are_those_of_all_possible_draws() -> None:
    """Two objects and three scenes, crossed unevenly: 2^2 x 3^3 draws of levels, each as likely."""
    objects, scenes, values = [0, 0, 1, 1, 1], [0, 1, 0, 1, 2], [3.0, -1.0, 2.0, 5.0, 0.5]
    totals = [
        sum(drawn_o.count(o) * drawn_s.count(s) * value for o, s, value in zip(objects, scenes, values, strict=True))
        for drawn_o in product(range(2), repeat=2)
        for drawn_s in product(range(3), repeat=3)
    ]
    draws = clustered_draws(np.array(values)[:, None], columns(objects, scenes), RESAMPLES, 0)
    assert draws.shape == (RESAMPLES, 1)
    assert draws.mean() == pytest.approx(np.mean(totals), abs=4 * np.std(totals) / RESAMPLES**0.5)
    assert draws.std() == pytest.approx(np.std(totals), rel=0.03)
    assert set(np.unique(draws)) <= set(totals)


def test_variance_of_a_full_grid_is_the_sum_of_both_factors() -> None:
    """y = a_i + b_j: the mean's variance is var(a) / I + var(b) / J, without a part of single questions."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), 2 * rng.normal(size=30)
    rows, cells = np.divmod(np.arange(360), 30)
    counts = np.stack([a[rows] + b[cells], np.ones(360)], axis=1)
    draws = clustered_draws(counts, np.stack([rows, cells], axis=1), RESAMPLES, 2)
    means = draws[:, 0] / draws[:, 1]
    assert means.std() == pytest.approx((a.var() / 12 + b.var() / 30) ** 0.5, rel=0.03)
    assert means.mean() == pytest.approx(a.mean() + b.mean(), abs=0.02)


def test_questions_that_are_clusters_of_their_own_give_the_plain_bootstrap() -> None:
    values = np.random.default_rng(3).normal(size=(40, 1))
    own = np.arange(40)
    for factors in (own[:, None], np.stack([own, own[::-1]], axis=1)):
        draws = clustered_draws(values, factors, RESAMPLES, 4)
        plain = resampled_sums(values, RESAMPLES, 5)
        assert draws.std() == pytest.approx(plain.std(), rel=0.03)
        assert draws.std() == pytest.approx(values.std() * 40**0.5, rel=0.03)


def test_a_factor_nested_in_another_changes_nothing() -> None:
    """Scenes of one object each: the objects move as wholes, and the product would count scenes again."""
    values = np.random.default_rng(6).normal(size=(60, 2))
    objects, scenes = np.arange(60) // 10, np.arange(60)
    alone = clustered_draws(values, objects[:, None], 50, 7)
    assert np.array_equal(clustered_draws(values, np.stack([scenes, objects], axis=1), 50, 7), alone)
    assert np.array_equal(clustered_draws(values, np.stack([objects, objects], axis=1), 50, 7), alone)


def test_columns_share_their_draws_and_one_cluster_never_varies() -> None:
    values = np.random.default_rng(8).normal(size=(30, 1))
    draws = clustered_draws(np.hstack([values, 3 * values]), columns([i % 7 for i in range(30)]), 100, 9)
    assert draws[:, 1] == pytest.approx(3 * draws[:, 0])
    assert clustered_draws(values, columns([5] * 30), 100, 9) == pytest.approx(values.sum())
