"""The summary of an evaluation: every metric of every policy with its interval, and paired differences to the base.

    {"policies":    {label: {metric: {value, low, high, n}}},
     "differences": {label: {metric: {value, low, high, n, p?}}},      label minus the first policy
     "metrics":     {metric: {label, group, better, unit, headline, place}},  how to show them
     "about":       {base, policies, confidence, bootstrap, ...}}

`n` counts the trials of a rate, or the questions of any other ratio. `value` (with `low` and `high`) is null where a
policy leaves nothing to divide by, e.g. the precision of one that never says yes. `p` is McNemar's, present where each
question is simply right or wrong. Stored JSON has its keys sorted: `about.policies` and `place` keep the order, and
`in_order` brings it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mbpo_core.errors import DataError
from mbpo_core.evaluation.counting import Metric
from mbpo_core.evaluation.counts import Counts
from mbpo_core.evaluation.entries import Entry, count_all
from mbpo_core.evaluation.intervals import mean_interval
from mbpo_core.evaluation.metrics import HEADLINE, metrics_for
from mbpo_core.evaluation.outcomes import read_outcome

Summary = dict[str, Any]

CLUSTERS: tuple[str, ...] = ("object", "scene")
"""What the bootstrap clusters questions by, where nothing else is asked for."""

POOLED_CLUSTERS: tuple[str, ...] = ("seed", *CLUSTERS)
"""The same where several runs are pooled."""


def summarize(
    rows: Iterable[Mapping[str, Any]],
    *,
    confidence: float = 0.95,
    bootstrap: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] = CLUSTERS,
    baseline: str = "",
) -> Summary:
    """All metrics of all policies, and each policy minus the baseline.

    Args:
        rows: Prediction rows (images not needed), gone through twice. Of each row some 40 bytes and 4 a metric stay
            in memory.
        confidence: level of all intervals.
        bootstrap: resamples of the paired bootstraps.
        seed: of the bootstraps.
        clusters: what questions are clustered by, of "object" and "scene"; none for single questions alone.
        baseline: label of the policy that differences are taken to; empty for the first one seen.

    Raises:
        DataError: no rows, policies that answered different questions, or no policy of that label.
    """
    counts = count_rows([rows])
    return summary_of(
        counts, confidence=confidence, bootstrap=bootstrap, seed=seed, clusters=clusters, baseline=baseline
    )


def count_rows(rows_by_seed: Sequence[Iterable[Mapping[str, Any]]]) -> Counts:
    """What the predictions of one or more runs add to every metric that their questions allow.

    Args:
        rows_by_seed: Prediction rows of each run (images not needed), gone through twice.
    """
    several = [list(rows) if iter(rows) is rows else rows for rows in rows_by_seed]
    counts = Counts(metrics_for((row["question_kind"], row["probe"]) for rows in several for row in rows))
    for number, rows in enumerate(several):
        for row in rows:
            counts.add(row["policy"], read_outcome(row), number)
    counts.close()
    return counts


def summary_of(
    counts: Counts,
    *,
    confidence: float = 0.95,
    bootstrap: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] = CLUSTERS,
    baseline: str = "",
) -> Summary:
    """`summarize` of what `count_rows` counted; over several runs with the t-interval over them beside it.

    Raises:
        DataError: as `summarize`.
    """
    questions, labels = counts.questions(), counts.policies
    baseline = baseline or labels[0]
    if baseline not in labels:
        raise DataError(
            f"no policy is called {baseline!r}",
            where="evaluation summary",
            expected=f"one of: {', '.join(labels)}",
            remedy="Name a policy that was evaluated as the baseline.",
        )
    base, runs = labels.index(baseline), len(counts.seeds)
    policies: dict[str, dict[str, Entry]] = {label: {} for label in labels}
    differences: dict[str, dict[str, Entry]] = {label: {} for label in labels if label != baseline}
    described: dict[str, Entry] = {}
    for counted in count_all(counts, bootstrap=bootstrap, seed=seed, clusters=clusters):
        name = counted.metric.name
        described[name] = _describe(counted.metric, place=len(described))
        values = [counted.by_seed(index) for index in range(len(labels))] if runs > 1 else None
        for index, label in enumerate(labels):
            policies[label][name] = counted.entry(index, confidence)
            if values:
                policies[label][name] |= _over_seeds(values[index], confidence)
            if index == base:
                continue
            differences[label][name] = counted.difference(base, index, confidence)
            if values:
                gaps = [after - before for before, after in zip(values[base], values[index], strict=True)]
                differences[label][name] |= _over_seeds(gaps, confidence)
    about = {
        "base": baseline,
        "policies": labels,
        "confidence": confidence,
        "bootstrap": bootstrap,
        "clusters": list(clusters),
        "questions": questions,
    }
    if runs > 1:
        about["pooled"] = runs
    return {"policies": policies, "differences": differences, "metrics": described, "about": about}


def in_order(summary: Summary) -> Summary:
    """The summary with policies and metrics in the order in which they were made, whatever stored it."""
    labels, metrics = summary["about"]["policies"], summary["metrics"]
    names = sorted(metrics, key=lambda name: int(metrics[name]["place"]))

    def ordered(part: str) -> dict[str, dict[str, Entry]]:
        found = summary[part]
        return {
            label: {name: found[label][name] for name in names if name in found[label]}
            for label in labels
            if label in found
        }

    return summary | {
        "policies": ordered("policies"),
        "differences": ordered("differences"),
        "metrics": {name: metrics[name] for name in names},
    }


def summary_for(summary: Summary, base: str = "base", trained: str = "trained") -> dict[str, dict[str, Entry]]:
    """One policy against the base: {"base": {...}, "trained": {...}, "difference": {...}}.

    Every entry is exactly {value, low, high, n}.

    Raises:
        DataError: a label is not in the summary, or `base` is not the policy that differences were taken to.
    """
    summary = in_order(summary)
    policies, differences = summary["policies"], summary["differences"]
    if base not in policies or trained not in differences or base in differences:
        raise DataError(
            f"no comparison of {trained!r} with {base!r}",
            where="evaluation summary",
            expected=f"base {next(iter(policies))!r} and one of: {', '.join(differences) or 'no other policy'}",
            remedy="Run the evaluation with both policies.",
        )
    columns = {"base": policies[base], "trained": policies[trained], "difference": differences[trained]}
    keys = ("value", "low", "high", "n")
    return {
        column: {name: {key: entry[key] for key in keys} for name, entry in entries.items()}
        for column, entries in columns.items()
    }


def combine_summaries(summaries: Sequence[Summary], *, confidence: float = 0.95) -> Summary:
    """Mean over seeds with its t-interval, in the same shape; `n` is then the number of seeds.

    A metric that is missing or null in one of the summaries is left out.

    Args:
        summaries: one a seed, of the same policies.
        confidence: level of the t-intervals.

    Raises:
        DataError: fewer than two summaries, or different policies.
    """
    summaries = [in_order(summary) for summary in summaries]
    if len(summaries) < 2 or any(list(s["policies"]) != list(summaries[0]["policies"]) for s in summaries):
        raise DataError(
            f"cannot average {len(summaries)} evaluation(s)",
            where=", ".join(" ".join(summary["policies"]) for summary in summaries),
            expected="two or more seeds of the same policies",
            remedy="Run the same comparison with --seeds 2 or more.",
        )
    first = summaries[0]
    combined: Summary = {
        part: {label: _mean_entries([s[part][label] for s in summaries], confidence) for label in first[part]}
        for part in ("policies", "differences")
    }
    return combined | {
        "metrics": first["metrics"],
        "about": {
            "base": first["about"]["base"],
            "policies": list(first["policies"]),
            "confidence": confidence,
            "seeds": len(summaries),
        },
    }


def _mean_entries(entries: Sequence[Mapping[str, Entry]], confidence: float) -> dict[str, Entry]:
    combined: dict[str, Entry] = {}
    for name in entries[0]:
        values = [entry[name]["value"] for entry in entries if name in entry]
        if len(values) == len(entries) and None not in values:
            value, low, high = mean_interval(values, confidence)
            combined[name] = {"value": value, "low": low, "high": high, "n": len(values)}
    return combined


def _over_seeds(values: Sequence[float], confidence: float) -> Entry:
    """Mean over runs and its t-interval; null where a run has no value."""
    if any(math.isnan(value) for value in values):
        return {"seed_mean": None, "seed_low": None, "seed_high": None}
    return dict(zip(("seed_mean", "seed_low", "seed_high"), mean_interval(values, confidence), strict=True))


def _describe(metric: Metric, place: int) -> Entry:
    return {
        "label": metric.label,
        "group": metric.group,
        "better": metric.better,
        "unit": metric.unit,
        "headline": metric.name in HEADLINE,
        "place": place,
    }
