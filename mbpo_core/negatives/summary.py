"""How often the attack succeeded, over all samples that were attacked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = ("question_kind", "clean_correct", "flipped", "flipped_unrounded")
_COUNTED = COLUMNS[1:]


def summarize(negatives: Iterable[Mapping[str, Any]], dropped: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of attacked samples, and among them of answers that were right and flipped.

    A sample whose answer withstood the attack is usually dropped as `same_answer`; rates over the kept rows alone
    would flatter the attack. Dead letters carry the same three flags in their row's JSON.

    Args:
        negatives: rows of the main table with `COLUMNS`.
        dropped: dead letters; those that were never attacked (unreadable, too long) do not count.

    Returns:
        {"all": counts, "by_kind": {question kind: counts}}; counts are attacked, kept, clean_correct, flipped,
        flipped_unrounded.
    """
    by_kind: dict[str, dict[str, int]] = {}
    for row in negatives:
        _count(by_kind, row["question_kind"], row, kept=True)
    for letter in dropped:
        row = json.loads(letter["row"])
        if "clean_correct" in row:
            _count(by_kind, row["kind"], row, kept=False)
    names = ("attacked", "kept", *_COUNTED)
    total = {name: sum(counts[name] for counts in by_kind.values()) for name in names}
    return {"all": total, "by_kind": dict(sorted(by_kind.items()))}


def _count(by_kind: dict[str, dict[str, int]], kind: str, row: Mapping[str, Any], *, kept: bool) -> None:
    counts = by_kind.setdefault(kind, dict.fromkeys(("attacked", "kept", *_COUNTED), 0))
    counts["attacked"] += 1
    counts["kept"] += kept
    for name in _COUNTED:
        counts[name] += bool(row[name])
