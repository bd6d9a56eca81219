"""How often the attack succeeded, and what it took, over all samples that were attacked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = ("question_kind", "clean_correct", "flipped", "flipped_unrounded", "attack")
_FLAGS = COLUMNS[1:4]
_COUNTED = ("attacked", "kept", *_FLAGS, "steps", "ended_early")


def summarize(negatives: Iterable[Mapping[str, Any]], dropped: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of attacked samples, and among them of answers that were right and flipped.

    A sample whose answer withstood the attack is usually dropped as `same_answer`; rates over the kept rows alone
    would flatter the attack. Dead letters carry the same columns in their row's JSON.

    Args:
        negatives: rows of the main table with `COLUMNS`.
        dropped: dead letters; those that were never attacked (unreadable, too long) do not count.

    Returns:
        {"all": counts, "by_kind": {question kind: counts}}; counts are attacked, kept, clean_correct, flipped,
        flipped_unrounded, steps (gradient steps of all samples), ended_early (by loss bound or flip) and mean_steps
        (a sample).
    """
    by_kind: dict[str, dict[str, int]] = {}
    for row in negatives:
        _count(by_kind, row["question_kind"], row, json.loads(row["attack"]), kept=True)
    for letter in dropped:
        row = json.loads(letter["row"])
        if "clean_correct" in row:
            _count(by_kind, row["kind"], row, row["attack"], kept=False)
    total = {name: sum(counts[name] for counts in by_kind.values()) for name in _COUNTED}
    return {"all": _with_mean(total), "by_kind": {kind: _with_mean(by_kind[kind]) for kind in sorted(by_kind)}}


def _count(
    by_kind: dict[str, dict[str, int]], kind: str, row: Mapping[str, Any], attack: Mapping[str, Any], *, kept: bool
) -> None:
    counts = by_kind.setdefault(kind, dict.fromkeys(_COUNTED, 0))
    counts["attacked"] += 1
    counts["kept"] += kept
    for name in _FLAGS:
        counts[name] += bool(row[name])
    counts["steps"] += attack.get("steps_taken", 0)
    counts["ended_early"] += attack.get("stopped", "steps") != "steps"


def _with_mean(counts: dict[str, int]) -> dict[str, float]:
    return {**counts, "mean_steps": round(counts["steps"] / max(counts["attacked"], 1), 3)}
