"""Several runs of one comparison, pooled: every question of every seed counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mbpo_core.evaluation.summary import Summary, count_rows, summary_of

POOLED_CLUSTERS: tuple[str, ...] = ("seed", "object", "scene")


def summarize_seeds(
    rows_by_seed: Sequence[Iterable[Mapping[str, Any]]],
    *,
    confidence: float = 0.95,
    bootstrap: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] = POOLED_CLUSTERS,
    baseline: str = "",
) -> Summary:
    """The summary of `summarize` over the questions of all seeds, differences paired by question within each seed.

    Every entry of `policies` and `differences` has {value, low, high, n} of the pooled questions (crossed bootstrap
    over seed, object and scene), and {seed_mean, seed_low, seed_high}: the mean over seeds with its t-interval (null
    where a seed has no value; absent where there is one seed). To compare with several baselines, count once with
    `count_rows(rows_by_seed)` and call `summary_of(counts, baseline=..., clusters=POOLED_CLUSTERS)` for each.

    Args:
        rows_by_seed: Prediction rows of each seed, of all its policies (images not needed); gone through twice. Every
            seed must have the same policies.
        confidence: level of all intervals.
        bootstrap: resamples.
        seed: of the bootstraps.
        clusters: factors of the crossed bootstrap, of "seed", "object" and "scene".
        baseline: label of the policy that differences are taken to; empty for the first one seen.

    Raises:
        DataError: no rows, policies that answered different questions, or no policy of that label.
    """
    counts = count_rows(rows_by_seed)
    return summary_of(
        counts, confidence=confidence, bootstrap=bootstrap, seed=seed, clusters=clusters, baseline=baseline
    )
