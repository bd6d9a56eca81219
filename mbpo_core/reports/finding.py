"""How rejected images and their key regions were found, in words, out of what rows record of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.reports.sources import parse_meta, percent, same_words
from mbpo_core.stage import Row

GLOBAL = "global"
"""Detector of regions that were not found: the whole image stands for them."""

_WAYS = {
    "question": "another image of the same question",
    "embedding": "a similar image",
    "recolour": "the thing in the key region painted in another colour",
}


def region_line(row: Mapping[str, Any]) -> str:
    """The words that a row's key region belongs to and what found it; "" where no region was looked for."""
    words = ", ".join(f"“{word}”" for word in row["keywords"]) or "the whole answer"
    if row["detector"] == GLOBAL:
        return f"nothing found for {words}: the whole image"
    return f"{words}, found by {row['detector']}" if row["detector"] else ""


def how_found(attack: Mapping[str, Any]) -> str:
    """How a rejected image came about, in one clause, out of what its row records.

    Args:
        attack: the row's `attack`, of unknown make: every entry may be missing or of another type.
    """
    way, sample = attack.get("from"), attack.get("sample")
    if way == "recolour":
        side = "; the painted picture is the clean one" if attack.get("swapped") is True else ""
        thing = f" “{attack['thing']}”" if "thing" in attack else ""
        return f"painted{thing} {attack.get('new')} instead of {attack.get('old')}{side}"
    if sample is not None:
        near = f", cosine {_number(attack['cosine'], '.2f')}" if "cosine" in attack else ""
        return f"{_search(way, attack.get('same_question'))}: {sample} (“{attack.get('answer')}”){near}"
    crops = attack.get("crops")
    boxes = [box for box in crops if isinstance(box, list) and len(box) == 4] if isinstance(crops, list) else []
    return "; ".join(f"crop of {wide} × {high} pixels at ({left}, {top})" for top, left, high, wide in boxes)


def _search(way: object, same_question: object) -> str:
    if way == "question":
        return "same question, another answer"
    if way == "embedding":
        return f"similar image, {'same question, another answer' if same_question else 'question of the same kind'}"
    return "most similar other image"


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else str(value)


def found_counts(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, int]]]]:
    """How many regions each detector found, and how many images each way."""
    detectors = Counter(row["detector"] for row in rows if row["detector"])
    ways = Counter(str(way) for row in rows if (way := parse_meta(row["attack"]).get("from")) is not None)
    regions = [
        ("not found, so that the whole image stands for them" if name == GLOBAL else f"found by {name}", count)
        for name, count in detectors.most_common()
    ]
    images = [(_WAYS.get(name, name), count) for name, count in ways.most_common()]
    return [(what, found) for what, found in (("Key regions", regions), ("Rejected images", images)) if found]


def says_the_other(rows: Sequence[Row]) -> str:
    """How often the policy answers another image of the same question as that image's own sample does."""
    asked = [(row, parse_meta(row["attack"])) for row in rows]
    told = [(row, how["answer"]) for row, how in asked if how.get("same_question") is True and "answer" in how]
    same = sum(same_words(row["attacked_answer"], str(answer)) for row, answer in told)
    return percent(same, len(told)) if told else ""
