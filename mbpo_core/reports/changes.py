"""Held-out questions that one of base and trained policy answers rightly: fixed and broken alike."""

from __future__ import annotations

from dataclasses import dataclass

from mbpo_core.methods import title_of
from mbpo_core.reports.gallery import Controls, Traits, controls, object_of
from mbpo_core.reports.pictures import Picture, decode, picture
from mbpo_core.reports.sources import parse_meta, spread
from mbpo_core.stage import Reader, Row

COLUMNS: tuple[str, ...] = ("policy", "sample_id", "question_kind", "probe", "verdict")


@dataclass(frozen=True)
class ChangeCard:
    """One question with both answers."""

    sample_id: str
    probe: str
    kind: str
    object: str
    picture: Picture | None
    question: str
    answer: str
    before: tuple[str, str]  # text, verdict
    after: tuple[str, str]

    @property
    def change(self) -> str:
        return "fixed" if self.after[1] == "correct" else "broken"

    @property
    def traits(self) -> Traits:
        return Traits({"change": self.change, "probe": self.probe, "kind": self.kind, "object": self.object}, {})


@dataclass(frozen=True)
class Changes:
    """The section on changed predictions."""

    before: str
    after: str
    by_probe: list[tuple[str, int, int, int]]  # probe, questions, fixed, broken
    total: int
    cards: list[ChangeCard]
    controls: Controls


def changes_section(evaluation: Reader | None, wanted: int) -> Changes | None:
    """The section, or None without an evaluation of two policies.

    Args:
        evaluation: the evaluation artifact; images are read from the first policy's rows.
        wanted: changes shown, fixed and broken in the proportion in which they occur, at even distances.
    """
    if evaluation is None:
        return None
    rows = [{**row, "number": number} for number, row in enumerate(evaluation.rows(columns=COLUMNS))]
    labels = list(dict.fromkeys(row["policy"] for row in rows))
    if len(labels) < 2:
        return None
    before, after = labels[0], labels[-1]
    latest = {row["sample_id"]: row for row in rows if row["policy"] == after}
    pairs = [(row, latest[row["sample_id"]]) for row in rows if row["policy"] == before and row["sample_id"] in latest]
    fixed = [pair for pair in pairs if pair[1]["verdict"] == "correct" != pair[0]["verdict"]]
    broken = [pair for pair in pairs if pair[0]["verdict"] == "correct" != pair[1]["verdict"]]
    cards = [_card(evaluation, *pair) for pair in _shown(fixed, broken, wanted)]
    names = {"change": "fixed or broken", "probe": "probe", "kind": "kind", "object": "object"}
    return Changes(
        before=title_of(before),
        after=title_of(after),
        by_probe=_by_probe(pairs, fixed, broken),
        total=len(fixed) + len(broken),
        cards=cards,
        controls=controls(cards, names),
    )


def _shown(fixed: list[tuple[Row, Row]], broken: list[tuple[Row, Row]], wanted: int) -> list[tuple[Row, Row]]:
    total = len(fixed) + len(broken)
    breaks = min(len(broken), max(round(wanted * len(broken) / total), 1)) if broken else 0
    shown = [fixed[i] for i in spread(len(fixed), wanted - breaks)] + [broken[i] for i in spread(len(broken), breaks)]
    return shown[:wanted]


def _by_probe(
    pairs: list[tuple[Row, Row]], fixed: list[tuple[Row, Row]], broken: list[tuple[Row, Row]]
) -> list[tuple[str, int, int, int]]:
    def count(some: list[tuple[Row, Row]], probe: str) -> int:
        return sum(before["probe"] == probe for before, _ in some)

    probes = dict.fromkeys(before["probe"] for before, _ in pairs)
    return [(probe, count(pairs, probe), count(fixed, probe), count(broken, probe)) for probe in probes]


def _card(evaluation: Reader, before: Row, after: Row) -> ChangeCard:
    old, new = (evaluation.slice(row["number"], row["number"] + 1)[0] for row in (before, after))
    image = old["images"][0] if old["images"] else None
    return ChangeCard(
        sample_id=old["sample_id"],
        probe=old["probe"].replace("_", " "),
        kind=old["question_kind"].replace("_", " "),
        object=object_of(parse_meta(old["meta"])),
        picture=picture(decode(image), f"Image of the question: {old['question']}"),
        question=old["question"],
        answer=old["answer"],
        before=(old["text"], old["verdict"]),
        after=(new["text"], new["verdict"]),
    )
