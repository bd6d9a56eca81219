"""What cards can be filtered and sorted by; the page's script reads it off their data attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Traits:
    """What a card is found by.

    Attributes:
        words: values by filter, e.g. {"kind": "yes no"}.
        numbers: values by sorting key, e.g. {"gain": 0.8}; None where a card has none.
    """

    words: Mapping[str, str]
    numbers: Mapping[str, float | None]


class Card(Protocol):
    """A card of any section."""

    @property
    def traits(self) -> Traits: ...


@dataclass(frozen=True)
class Filter:
    """One choice above a gallery: the values there are, with how many cards have each."""

    name: str
    label: str
    options: list[tuple[str, int]]


@dataclass(frozen=True)
class Controls:
    """The form above a gallery.

    Attributes:
        filters: those that tell at least two cards apart.
        sorts: (key, label) of numbers that cards can be sorted by.
        least: (key, label) of a number that can be bounded from below; None for none.
    """

    filters: list[Filter]
    sorts: list[tuple[str, str]]
    least: tuple[str, str] | None = None


def controls(
    cards: Sequence[Card],
    filters: Mapping[str, str],
    sorts: Mapping[str, str] = {},
    least: tuple[str, str] | None = None,
) -> Controls:
    """The form for some cards; what all of them share is no filter, what none of them has no order.

    Args:
        cards: those of one gallery.
        filters: labels by name of `Traits.words`.
        sorts: labels by name of `Traits.numbers`.
        least: name and label of the number that may be bounded.
    """
    counted = [
        Filter(name, label, sorted(Counter(card.traits.words.get(name, "") for card in cards).items()))
        for name, label in filters.items()
    ]
    there = {name for card in cards for name, value in card.traits.numbers.items() if value is not None}
    return Controls(
        filters=[one for one in counted if len(one.options) > 1],
        sorts=[(name, label) for name, label in sorts.items() if name in there],
        least=least if least is not None and least[0] in there else None,
    )


def object_of(meta: Mapping[str, Any]) -> str:
    """What a question is about, where its meta says so: its subject, else the first object of the picture."""
    objects = meta.get("objects")
    subject = meta.get("subject") or (objects[0] if isinstance(objects, list) and objects else "")
    return subject if isinstance(subject, str) else ""
