"""The mined pairs with their pictures, and the histogram of their gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbpo_core.reports.charts import Chart, histogram
from mbpo_core.reports.comparing import Captioned, Looks, factor_for, looks_of, side_by_side
from mbpo_core.reports.finding import how_found, region_line
from mbpo_core.reports.kinds import origin, plain
from mbpo_core.reports.sources import Rounds, filled, message_text, parse_meta, spread_rows
from mbpo_core.stage import Row


@dataclass(frozen=True)
class PairCard:
    """One pair as it is shown.

    Attributes:
        round_name: "round 1"; "" where pairs were mined once.
        rejected: None where only the image is dispreferred.
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
    region: str
    found: str


@dataclass(frozen=True)
class MinedPairs:
    """The section on pairs."""

    cards: list[PairCard]
    total: int
    rounds: int
    factor: int
    origin: str
    image_only: int
    gains: list[Chart]
    blind: str


def pairs_section(pairs: Rounds, negatives: Rounds, wanted: int) -> MinedPairs | None:
    """The section, or None where there are no pairs.

    Args:
        pairs: the pairs of each mining.
        negatives: where the policy's clean and blind answers are found, and how images were; may be missing.
        wanted: pairs shown, taken at even distances and dealt over the rounds.
    """
    pairs = filled(pairs)
    if not pairs:
        return None
    rows = [(index, row) for index, _, row in spread_rows(pairs, wanted)]
    answers = _answers(negatives, {(index, row["sample_id"]) for index, row in rows})
    attacks = [parse_meta(answers.get((index, row["sample_id"]), {}).get("attack")) for index, row in rows]
    looks = [looks_of(row, row["negative_kind"], attack) for (_, row), attack in zip(rows, attacks, strict=True)]
    factor = factor_for(looks)
    first = pairs[0][1].slice(0, 1, columns=["blind", "negative_kind"])[0]
    named = len(pairs) > 1
    return MinedPairs(
        cards=[
            _card(row, seen, answers.get((index, row["sample_id"]), {}), factor, f"round {index + 1}" if named else "")
            for (index, row), seen in zip(rows, looks, strict=True)
        ],
        total=sum(reader.count() for _, reader in pairs),
        rounds=len(pairs),
        factor=factor,
        origin=origin(first["negative_kind"]),
        image_only=sum(row["gain_rejected"] is None for _, r in pairs for row in r.rows(columns=["gain_rejected"])),
        gains=_gain_charts(pairs),
        blind=first["blind"],
    )


def _answers(negatives: Rounds, wanted: set[tuple[int, str]]) -> dict[tuple[int, str], Row]:
    """What the policy said and how the row came about, by round and sample."""
    columns = ["sample_id", "clean_answer", "blind_answer", "keywords", "detector", "attack"]
    found = (((index, row["sample_id"]), row) for index, reader in negatives for row in reader.rows(columns=columns))
    return {key: row for key, row in found if key in wanted}


def _card(row: Row, looks: Looks, answers: Mapping[str, Any], factor: int, round_name: str) -> PairCard:
    question = message_text(row["prompt"])
    return PairCard(
        sample_id=row["sample_id"],
        round_name=round_name,
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
        region=region_line(answers) if answers else "",
        found=how_found(parse_meta(answers.get("attack"))),
    )


def _gain_charts(pairs: Rounds) -> list[Chart]:
    """Gains of the pairs that were kept and, where the stage recorded all it scored, of those too."""
    charts = [_gain_chart(pairs, "part", "Pairs that were kept")]
    if all("scored" in reader.manifest.tables for _, reader in pairs):
        charts.append(_gain_chart(pairs, "scored", "All pairs that were scored"))
    return charts


def _gain_chart(pairs: Rounds, table: str, title: str) -> Chart:
    columns = ["gain_chosen", "gain_rejected"]
    rows = [row for _, reader in pairs for row in reader.rows(table, columns=columns)]
    sides = (("chosen", "s-chosen"), ("rejected", "s-rejected"))
    groups = [
        (side, style, [row[f"gain_{side}"] for row in rows if row[f"gain_{side}"] is not None]) for side, style in sides
    ]
    return histogram(f"{title} ({len(rows):,})", [group for group in groups if group[2]], unit="nats per token")
