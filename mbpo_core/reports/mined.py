"""The mined pairs with their pictures, kept and dropped, and the histograms of their gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbpo_core.records import message_text
from mbpo_core.reports.charts import Chart, histogram
from mbpo_core.reports.comparing import Captioned, Looks, factor_for, looks_of, side_by_side
from mbpo_core.reports.finding import how_found, region_line
from mbpo_core.reports.funnel import REASONS
from mbpo_core.reports.gallery import Controls, Traits, controls, object_of
from mbpo_core.reports.kinds import origin, plain
from mbpo_core.reports.sources import Rounds, dealt, filled, parse_meta, spread
from mbpo_core.stage import Reader, Row

KEPT = "kept"
_ANSWERS = [
    "sample_id", "clean_answer", "blind_answer", "clean_correct", "flipped", "flipped_unrounded", "keywords",
    "detector", "attack",
]  # fmt: skip


@dataclass(frozen=True)
class PairCard:
    """One pair as it is shown.

    Attributes:
        round_name: "round 1"; "" where pairs were mined once.
        rejected: None where only the image is dispreferred.
        dropped: why it was not kept, in words; "" for a pair that was.
        flip: what the rejected image did to the answer; "" where that is not known.
        region: the words that the key region belongs to and what found it; "" where no region was looked for.
        found: how the rejected image was found or made; "" where its kind says it all.
    """

    sample_id: str
    round_name: str
    kind: str
    negative_kind: str
    pictures: list[Captioned]
    question: str
    chosen: str
    rejected: str | None
    clean_answer: str
    blind_answer: str
    gain_chosen: float
    gain_rejected: float | None
    object: str
    dropped: str
    flip: str
    region: str
    found: str

    @property
    def traits(self) -> Traits:
        lead = None if self.gain_rejected is None else self.gain_chosen - self.gain_rejected
        return Traits(
            {"kind": self.kind, "object": self.object, "kept": self.dropped or KEPT, "flip": self.flip},
            {"gain": self.gain_chosen, "rejected": self.gain_rejected, "lead": lead},
        )


@dataclass(frozen=True)
class MinedPairs:
    """The section on pairs; `shown` are the cards of pairs that were kept."""

    cards: list[PairCard]
    controls: Controls
    shown: int
    total: int
    scored: int
    rounds: int
    factor: int
    origin: str
    image_only: int
    gains: list[Chart]
    blind: str


@dataclass(frozen=True)
class _Picked:
    """A scored pair that is shown."""

    round_index: int
    row: Row
    dropped: str
    answers: Mapping[str, Any]

    @property
    def looks(self) -> Looks:
        return looks_of(self.row, self.row["negative_kind"], parse_meta(self.answers.get("attack")))


def pairs_section(pairs: Rounds, negatives: Rounds, wanted: int) -> MinedPairs | None:
    """The section, or None where there are no pairs.

    Args:
        pairs: the pairs of each mining.
        negatives: where the policy's clean and blind answers are found, and how images were; may be missing.
        wanted: pairs shown, dealt over the rounds, each taken at even distances; where some were dropped, a third of
            them are of those.
    """
    pairs = filled(pairs)
    if not pairs:
        return None
    picked = [one for index, reader, share in dealt(pairs, wanted) for one in _picked(index, reader, negatives, share)]
    looks = [one.looks for one in picked]
    factor = factor_for(looks)
    first = pairs[0][1].slice(0, 1, columns=["blind", "negative_kind"])[0]
    cards = [_card(one, seen, factor, len(pairs) > 1) for one, seen in zip(picked, looks, strict=True)]
    sorts = {"gain": "gain of chosen", "rejected": "gain of rejected", "lead": "gain of chosen minus rejected"}
    names = {"kind": "kind", "object": "object", "kept": "kept or dropped", "flip": "flip"}
    return MinedPairs(
        cards=cards,
        controls=controls(cards, names, sorts, least=("gain", "gain at least")),
        shown=sum(not card.dropped for card in cards),
        total=sum(reader.count() for _, reader in pairs),
        scored=sum(reader.count(_table(reader)) for _, reader in pairs),
        rounds=len(pairs),
        factor=factor,
        origin=origin(first["negative_kind"]),
        image_only=sum(row["gain_rejected"] is None for _, r in pairs for row in r.rows(columns=["gain_rejected"])),
        gains=_gain_charts(pairs),
        blind=first["blind"],
    )


def _table(reader: Reader) -> str:
    """The table with all pairs that were scored, where the stage recorded them."""
    return "scored" if "scored" in reader.manifest.tables else "part"


def _picked(index: int, reader: Reader, negatives: Rounds, wanted: int) -> list[_Picked]:
    table = _table(reader)
    reasons = _reasons(reader)
    ids = [row["sample_id"] for row in reader.rows(table, columns=["sample_id"])]
    kept = [number for number, name in enumerate(ids) if name not in reasons]
    dropped = [number for number, name in enumerate(ids) if name in reasons]
    few = min(len(dropped), wanted // 3)
    numbers = [kept[i] for i in spread(len(kept), wanted - few)] + [dropped[i] for i in spread(len(dropped), few)]
    rows = [row for number in sorted(numbers) for row in reader.slice(number, number + 1, table)]
    shown = {row["sample_id"] for row in rows}
    mining = [one for place, one in negatives if place == index]
    answers = {
        row["sample_id"]: row for one in mining for row in one.rows(columns=_ANSWERS) if row["sample_id"] in shown
    }
    return [_Picked(index, row, reasons.get(row["sample_id"], ""), answers.get(row["sample_id"], {})) for row in rows]


def _reasons(reader: Reader) -> dict[str, str]:
    """Why each dropped pair was dropped, in words, by sample."""
    if not reader.manifest.dropped:
        return {}
    letters = reader.rows("dropped", columns=["sample_id", "reason"])
    return {row["sample_id"]: REASONS.get(row["reason"], row["reason"].replace("_", " ")) for row in letters}


def _card(picked: _Picked, looks: Looks, factor: int, several: bool) -> PairCard:
    row, answers = picked.row, picked.answers
    question = message_text(row["prompt"])
    return PairCard(
        sample_id=row["sample_id"],
        round_name=f"round {picked.round_index + 1}" if several else "",
        kind=plain(row["question_kind"]),
        negative_kind=plain(row["negative_kind"]),
        pictures=side_by_side(looks, row["negative_kind"], question, factor),
        question=question,
        chosen=message_text(row["chosen"]),
        rejected=message_text(row["rejected"]) if row["rejected"] else None,
        clean_answer=answers.get("clean_answer", ""),
        blind_answer=answers.get("blind_answer", ""),
        gain_chosen=row["gain_chosen"],
        gain_rejected=row["gain_rejected"],
        object=object_of(parse_meta(row["meta"])),
        dropped=picked.dropped,
        flip=_flip(answers) if row["rejected_images"] else "",
        region=region_line(answers) if answers else "",
        found=how_found(parse_meta(answers.get("attack"))),
    )


def _flip(answers: Mapping[str, Any]) -> str:
    if not answers:
        return ""
    if not answers["clean_correct"]:
        return "wrong before"
    if answers["flipped"]:
        return "flipped"
    return "undone by rounding" if answers["flipped_unrounded"] else "stayed right"


def _gain_charts(pairs: Rounds) -> list[Chart]:
    """Gains of both sides of the pairs that were kept; and, a question kind each, of chosen answers kept or dropped."""
    columns = ["gain_chosen", "gain_rejected"]
    rows = [row for _, reader in pairs for row in reader.rows(columns=columns)]
    sides = [
        (side, f"s-{side}", [row[f"gain_{side}"] for row in rows if row[f"gain_{side}"] is not None])
        for side in ("chosen", "rejected")
    ]
    title = f"Gain of the pairs that were kept ({len(rows):,})"
    return [histogram(title, [side for side in sides if side[2]], unit="nats per token"), *_cut_charts(pairs)]


def _cut_charts(pairs: Rounds) -> list[Chart]:
    if any(_table(reader) == "part" for _, reader in pairs):
        return []
    scored: list[tuple[str, float, bool]] = []
    for _, reader in pairs:
        kept = {row["sample_id"] for row in reader.rows(columns=["sample_id"])}
        columns = ["sample_id", "question_kind", "gain_chosen"]
        scored += [
            (row["question_kind"], row["gain_chosen"], row["sample_id"] in kept)
            for row in reader.rows("scored", columns=columns)
        ]
    config = pairs[0][1].manifest.config
    return [
        _cut_chart(kind, [one for one in scored if one[0] == kind], config) for kind in sorted({s[0] for s in scored})
    ]


def _cut_chart(kind: str, scored: Sequence[tuple[str, float, bool]], config: Mapping[str, Any]) -> Chart:
    kept, dropped = ([gain for _, gain, keep in scored if keep is wanted] for wanted in (True, False))
    cut = cut_off(kept, config)
    note = "" if cut is None else f"cut-off {cut:.2f}, dashed"
    groups = [("kept", "s-chosen", kept), ("dropped", "s-base", dropped)]
    title = f"Gain of chosen, {plain(kind)}: {len(kept):,} of {len(scored):,} kept"
    return histogram(title, groups, unit="nats per token", cut=cut, stacked=True, note=note)


def cut_off(kept: Sequence[float], config: Mapping[str, Any]) -> float | None:
    """The gain below which no pair of a question kind was kept; None where nothing was kept.

    With select "top" and a share below 1 it is the least gain that was kept, else the setting min_gain: random and
    bottom shares have no lower bound of their own.
    """
    if not kept:
        return None
    ranked = config.get("select") == "top" and config.get("share", 1) < 1
    return min(kept) if ranked else float(config.get("min_gain", 0.0))
