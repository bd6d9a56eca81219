"""Batches of neighbouring lengths, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


def by_length(
    rows: Sequence[Given],
    length: Callable[[Given], int],
    size: int,
    compute: Callable[[list[Given]], Sequence[Result]],
) -> list[Result]:
    """What `compute` gives for batches of at most `size` rows, the longest first; results in the rows' order."""
    order = sorted(range(len(rows)), key=lambda place: -length(rows[place]))
    results: dict[int, Result] = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        results.update(zip(places, compute([rows[place] for place in places]), strict=True))
    return [results[place] for place in range(len(rows))]
