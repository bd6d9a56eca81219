"""Dynamic sampling: a prompt whose completions all earn the same gives its place to others, until one's do not.

Every drawn prompt has stand-ins of its own, fixed before anything is asked. What is asked in its place depends on its
own groups alone, then: not on parts, processes or an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mbpo_core.records import Dropped, RolloutGroup, Sample
from mbpo_core.rollouts.collecting import Collector, Opened

FILE = "redraw.json"
"""What redrawing came to over the whole round."""


@dataclass(frozen=True)
class Draw:
    """A round's prompts, as positions in the view of online questions.

    Attributes:
        drawn: P positions, in the order in which they are asked.
        spares: those that may stand in; spare j stands in for drawn prompt j mod P.
    """

    drawn: Sequence[int]
    spares: Sequence[int] = ()

    def stand_ins(self, place: int) -> Sequence[int]:
        """Of the prompt at a place of `drawn`, in the order in which they are asked."""
        return self.spares[place :: len(self.drawn)]


@dataclass
class Asked:
    """What came of one drawn prompt and its stand-ins, in the order in which they were asked."""

    groups: list[RolloutGroup] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    tries: int = 0
    agreed: bool = False  # all groups so far


def ask(
    collector: Collector, opened: Opened, draw: Draw, start: int, read: Callable[[Sequence[int]], Sequence[Sample]]
) -> tuple[list[RolloutGroup], list[Dropped]]:
    """The groups of a batch of drawn prompts, each followed by those of its stand-ins.

    Pass 0 asks the batch, pass k the k-th stand-in of every prompt whose groups have agreed so far; at most as many
    passes as a prompt has stand-ins. A stand-in that cannot be asked gives way to the next one. Groups that agree are
    kept: they count in what the posterior learns.

    Args:
        opened: the batch.
        draw: of the round.
        start: place of the batch's first prompt in `draw.drawn`.
        read: samples at positions.
    """
    places = {sample_id: start + offset for sample_id, offset in opened.places.items()}
    asked = {place: Asked() for place in sorted(places.values())}
    _add(asked, collector, opened, places, marked=bool(draw.spares))
    while waiting := [place for place, one in asked.items() if one.agreed and one.tries < len(draw.stand_ins(place))]:
        again = collector.open_batch(read([draw.stand_ins(place)[asked[place].tries] for place in waiting]))
        for place in waiting:
            asked[place].tries += 1
        _add(asked, collector, again, {name: waiting[offset] for name, offset in again.places.items()}, marked=True)
    return [g for one in asked.values() for g in one.groups], [d for one in asked.values() for d in one.dropped]


def summary(groups: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What a round's redrawing cost and brought.

    Args:
        groups: rows of `RolloutGroup`, of which zero_variance and stand_in are read.

    Returns:
        asked: prompts that were asked, stand-ins among them; redrawn: those; agreed: groups that teach nothing;
        mixed: groups that teach.
    """
    counts = {"asked": 0, "redrawn": 0, "agreed": 0, "mixed": 0}
    for group in groups:
        counts["asked"] += 1
        counts["redrawn"] += bool(group["stand_in"])
        counts["agreed" if group["zero_variance"] else "mixed"] += 1
    return counts


def _add(
    asked: Mapping[int, Asked], collector: Collector, opened: Opened, places: Mapping[str, int], *, marked: bool
) -> None:
    """Sample a batch and put each group to the drawn prompt that it belongs to."""
    for letter in opened.dropped:
        asked[places[letter.sample_id]].dropped.append(letter)
    for group in collector.collect(opened):
        one = asked[places[group.sample_id]]
        update = {"stand_in": one.tries} if marked else {}
        one.groups.append(group.model_copy(update=update))
        one.agreed = group.zero_variance
