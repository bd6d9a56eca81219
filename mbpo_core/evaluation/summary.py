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

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mbpo_core.errors import DataError
from mbpo_core.evaluation.counting import Metric
from mbpo_core.evaluation.counts import Counts
from mbpo_core.evaluation.intervals import mean_interval, wilson_interval
from mbpo_core.evaluation.metrics import HEADLINE, metrics_for
from mbpo_core.evaluation.outcomes import read_outcome
from mbpo_core.evaluation.paired import Floats, mcnemar_p, percentile_interval, ratio, resampled_sums
from mbpo_core.seeds import derive_seed

Entry = dict[str, Any]
Summary = dict[str, Any]

_NOTHING: Entry = {"value": None, "low": None, "high": None, "n": 0}


def summarize(
    rows: Iterable[Mapping[str, Any]], *, confidence: float = 0.95, bootstrap: int = 2000, seed: int = 0
) -> Summary:
    """All metrics of all policies, and each policy minus the first.

    Args:
        rows: Prediction rows (images not needed), gone through twice; the first policy seen is the base. Of each row
            some 16 bytes and 2 a metric stay in memory.
        confidence: level of all intervals.
        bootstrap: resamples of the paired bootstrap, by question.
        seed: of the bootstrap.

    Raises:
        DataError: no rows, or policies that answered different questions.
    """
    if iter(rows) is rows:  # can be gone through once only
        rows = list(rows)
    metrics = metrics_for((row["question_kind"], row["probe"]) for row in rows)
    counted = Counts(metrics)
    for row in rows:
        counted.add(row["policy"], read_outcome(row))
    questions = counted.questions()
    policies: dict[str, dict[str, Entry]] = {label: {} for label in counted.policies}
    base, *others = policies
    differences: dict[str, dict[str, Entry]] = {label: {} for label in others}
    described: dict[str, Entry] = {}
    for number, metric in enumerate(metrics):
        if metric.name in described or not counted.counted(number, base):
            continue  # a probe of the user's must not replace a metric of ours
        described[metric.name] = _describe(metric, place=len(described))
        counts = counted.of(number)
        draws = _draws(counts, bootstrap, derive_seed(seed, "evaluation", "bootstrap", metric.name))
        for index, label in enumerate(policies):
            policies[label][metric.name] = _entry(metric, counts[index], draws[index], confidence)
        for index, label in enumerate(others, start=1):
            pair = counts[0], counts[index]
            differences[label][metric.name] = _difference(metric, *pair, draws[index] - draws[0], confidence)
    about = {
        "base": base,
        "policies": list(policies),
        "confidence": confidence,
        "bootstrap": bootstrap,
        "questions": questions,
    }
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


def _draws(counts: Sequence[Floats], bootstrap: int, seed: int) -> list[Floats]:
    """(R,) bootstrap values of each policy; draw r takes the same questions for all of them."""
    sums = resampled_sums(np.hstack(list(counts)), bootstrap, seed)
    return [ratio(sums[:, 2 * index], sums[:, 2 * index + 1]) for index in range(len(counts))]


def _entry(metric: Metric, counts: Floats, draws: Floats, confidence: float) -> Entry:
    numerator, denominator = (float(total) for total in counts.sum(axis=0))
    if denominator == 0:
        return dict(_NOTHING)
    interval = wilson_interval(numerator, denominator, confidence) if metric.rate else None
    interval = interval or percentile_interval(draws, confidence)
    if interval is None:
        return dict(_NOTHING)
    low, high = interval
    number = round(denominator) if metric.rate else len(counts)
    return {"value": numerator / denominator, "low": low, "high": high, "n": number}


def _difference(metric: Metric, base: Floats, other: Floats, draws: Floats, confidence: float) -> Entry:
    sums = base.sum(axis=0), other.sum(axis=0)
    interval = percentile_interval(draws, confidence)
    if sums[0][1] == 0 or sums[1][1] == 0 or interval is None:
        return dict(_NOTHING)
    low, high = interval
    value = float(sums[1][0] / sums[1][1] - sums[0][0] / sums[0][1])
    if metric.rate and low == high:
        # Every question says the same, and the bootstrap would claim certainty. How many might not is bounded instead.
        slack = wilson_interval(0, len(base), confidence)[1]
        low, high = max(-1.0, value - slack), min(1.0, value + slack)
    entry: Entry = {"value": value, "low": low, "high": high, "n": len(base)}
    if metric.rate and (base[:, 1] == 1).all() and (other[:, 1] == 1).all():
        lost = int(((base[:, 0] == 1) & (other[:, 0] == 0)).sum())
        gained = int(((base[:, 0] == 0) & (other[:, 0] == 1)).sum())
        entry["p"] = mcnemar_p(lost, gained)
    return entry


def _describe(metric: Metric, place: int) -> Entry:
    return {
        "label": metric.label,
        "group": metric.group,
        "better": metric.better,
        "unit": metric.unit,
        "headline": metric.name in HEADLINE,
        "place": place,
    }
