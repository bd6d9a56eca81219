"""Held-out questions that the base and the trained policy answer differently: gained and lost alike."""

from __future__ import annotations

from dataclasses import dataclass

from mbpo_core.methods import title_of
from mbpo_core.reports.pictures import Picture, decode, picture
from mbpo_core.reports.sources import spread
from mbpo_core.stage import Reader, Row

COLUMNS: tuple[str, ...] = ("policy", "sample_id", "question_kind", "probe", "verdict")


@dataclass(frozen=True)
class ChangeCard:
    """One question with both answers."""

    sample_id: str
    probe: str
    picture: Picture | None
    question: str
    answer: str
    before: tuple[str, str]  # text, verdict
    after: tuple[str, str]


@dataclass(frozen=True)
class Changes:
    """The section on changed predictions."""

    before: str
    after: str
    by_probe: list[tuple[str, int, int, int]]  # probe, questions, gained, lost
    total: int
    cards: list[ChangeCard]


def changes_section(evaluation: Reader | None, wanted: int) -> Changes | None:
    """The section, or None without an evaluation of two policies.

    Args:
        evaluation: the evaluation artifact; images are read from the first policy's rows.
        wanted: changes shown, gained and lost in the proportion in which they occur, at even distances.
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
    gained = [pair for pair in pairs if pair[1]["verdict"] == "correct" != pair[0]["verdict"]]
    lost = [pair for pair in pairs if pair[0]["verdict"] == "correct" != pair[1]["verdict"]]
    return Changes(
        before=title_of(before),
        after=title_of(after),
        by_probe=_by_probe(pairs, gained, lost),
        total=len(gained) + len(lost),
        cards=[_card(evaluation, *pair) for pair in _shown(gained, lost, wanted)],
    )


def _shown(gained: list[tuple[Row, Row]], lost: list[tuple[Row, Row]], wanted: int) -> list[tuple[Row, Row]]:
    total = len(gained) + len(lost)
    losses = min(len(lost), max(round(wanted * len(lost) / total), 1)) if lost else 0
    shown = [gained[i] for i in spread(len(gained), wanted - losses)] + [lost[i] for i in spread(len(lost), losses)]
    return shown[:wanted]


def _by_probe(
    pairs: list[tuple[Row, Row]], gained: list[tuple[Row, Row]], lost: list[tuple[Row, Row]]
) -> list[tuple[str, int, int, int]]:
    def count(some: list[tuple[Row, Row]], probe: str) -> int:
        return sum(before["probe"] == probe for before, _ in some)

    probes = dict.fromkeys(before["probe"] for before, _ in pairs)
    return [(probe, count(pairs, probe), count(gained, probe), count(lost, probe)) for probe in probes]


def _card(evaluation: Reader, before: Row, after: Row) -> ChangeCard:
    old, new = (evaluation.slice(row["number"], row["number"] + 1)[0] for row in (before, after))
    image = old["images"][0] if old["images"] else None
    return ChangeCard(
        sample_id=old["sample_id"],
        probe=old["probe"].replace("_", " "),
        picture=picture(decode(image), f"Image of the question: {old['question']}"),
        question=old["question"],
        answer=old["answer"],
        before=(old["text"], old["verdict"]),
        after=(new["text"], new["verdict"]),
    )
