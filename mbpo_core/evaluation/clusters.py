"""Bootstrap of questions that come in clusters: several about one object, one picture, one seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mbpo_core.evaluation.paired import Floats

Levels = npt.NDArray[np.int64]
_CELLS = 4_000_000  # numbers of a weight matrix that are alive at once


def clustered_draws(counts: Floats, factors: Levels, resamples: int, seed: int) -> Floats:
    """Column sums of `resamples` draws of the crossed ("pigeonhole") bootstrap.

        sums_rc = sum_n w_rn counts_nc,     w_rn = prod_f m_rf[level of question n in factor f]

    where m_rf counts how often each of a factor's K levels is drawn in K draws with replacement, for each factor
    apart. One draw serves all columns, so policies stay paired. A factor whose clusters all lie inside those of
    another is left out: the larger clusters move as one already, and a product would count the variance again.
    Where every question is its own cluster this is the plain bootstrap of questions.

    Args:
        counts: (N, C) float, what each question adds to each of C sums.
        factors: (N, F) integers, F >= 1: the level of each question in each factor.
        resamples: R.
        seed: of numpy's PCG64; equal seeds, equal draws.

    Returns:
        (R, C) float sums.

    Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1:386.
    """
    crossed = factors[:, _crossed(factors)]
    cells, of_question = np.unique(crossed, axis=0, return_inverse=True)  # questions of one cell share their weight
    added = np.zeros((len(cells), counts.shape[1]))
    np.add.at(added, of_question.reshape(-1), counts)
    levels = [np.unique(column, return_inverse=True)[1] for column in cells.T]
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS // len(cells))
    drawn = [_weights(levels, min(at_once, resamples - start), rng) @ added for start in range(0, resamples, at_once)]
    return np.concatenate(drawn)


def _weights(levels: list[Levels], rows: int, rng: np.random.Generator) -> Floats:
    """(rows, cells): the product over factors of how often the cell's level was drawn."""
    weights = np.ones((rows, len(levels[0])))
    for column in levels:
        size = int(column.max()) + 1
        picks = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        weights *= np.bincount(picks.reshape(-1), minlength=rows * size).reshape(rows, size)[:, column]
    return weights


def _crossed(factors: Levels) -> list[int]:
    """The factors that are not nested in another; of two that cut the questions alike, the first."""
    columns = range(factors.shape[1])
    sizes = [len(np.unique(factors[:, column])) for column in columns]
    kept: list[int] = []
    for column in columns:
        coarser = (
            o
            for o in columns
            if o != column and (sizes[o] < sizes[column] or (sizes[o] == sizes[column] and o < column))
        )
        if not any(len(np.unique(factors[:, [column, other]], axis=0)) == sizes[column] for other in coarser):
            kept.append(column)
    return kept
