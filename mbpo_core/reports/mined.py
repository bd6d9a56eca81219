"""The mined pairs with their pictures, and the histogram of their gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mbpo_core.reports.charts import Chart, histogram
from mbpo_core.reports.pictures import (
    Picture,
    amplified_difference,
    decode,
    difference_factor,
    largest_change,
    picture,
)
from mbpo_core.reports.sources import message_text, spread
from mbpo_core.stage import Reader


@dataclass(frozen=True)
class PairCard:
    """One pair as it is shown."""

    sample_id: str
    kind: str
    negative_kind: str
    pictures: list[tuple[str, Picture | None]]  # caption, picture
    question: str
    chosen: str
    rejected: str
    clean_answer: str
    blind_answer: str
    gain_chosen: float
    gain_rejected: float


@dataclass(frozen=True)
class MinedPairs:
    """The section on pairs."""

    cards: list[PairCard]
    total: int
    factor: int
    gains: list[Chart]
    blind: str


def pairs_section(pairs: Reader | None, negatives: Reader | None, wanted: int) -> MinedPairs | None:
    """The section, or None where there are no pairs.

    Args:
        pairs: the pairs artifact.
        negatives: where the policy's clean and blind answers are found; may be missing.
        wanted: pairs shown, taken at even distances.
    """
    if pairs is None or pairs.count() == 0:
        return None
    rows = [row for number in spread(pairs.count(), wanted) for row in pairs.slice(number, number + 1)]
    answers = _answers(negatives, {row["sample_id"] for row in rows})
    factor = difference_factor(max((largest_change(*_images(row)) for row in rows), default=0))
    return MinedPairs(
        cards=[_card(row, answers.get(row["sample_id"], {}), factor) for row in rows],
        total=pairs.count(),
        factor=factor,
        gains=_gain_charts(pairs),
        blind=pairs.slice(0, 1, columns=["blind"])[0]["blind"],
    )


def _answers(negatives: Reader | None, wanted: set[str]) -> dict[str, dict[str, Any]]:
    if negatives is None:
        return {}
    columns = ["sample_id", "clean_answer", "blind_answer"]
    return {row["sample_id"]: row for row in negatives.rows(columns=columns) if row["sample_id"] in wanted}


def _images(row: dict[str, Any]) -> tuple[Any, Any]:
    """The first clean and the first rejected image, decoded."""
    first = [images[0] if images else None for images in (row["images"], row["rejected_images"])]
    return decode(first[0]), decode(first[1])


def _card(row: dict[str, Any], answers: dict[str, Any], factor: int) -> PairCard:
    question = message_text(row["prompt"])
    clean, rejected = _images(row)
    change = amplified_difference(clean, rejected, factor)
    shown = (
        ("clean", clean, f"Clean image of the question: {question}"),
        (row["negative_kind"], rejected, f"The same image after the attack ({row['negative_kind']})"),
        (f"difference ×{factor}", change, f"Difference of the two images, {factor} times amplified around grey"),
    )
    return PairCard(
        sample_id=row["sample_id"],
        kind=row["question_kind"].replace("_", " "),
        negative_kind=row["negative_kind"],
        pictures=[(caption, picture(image, alt)) for caption, image, alt in shown],
        question=question,
        chosen=message_text(row["chosen"]),
        rejected=message_text(row["rejected"]),
        clean_answer=answers.get("clean_answer", ""),
        blind_answer=answers.get("blind_answer", ""),
        gain_chosen=row["gain_chosen"],
        gain_rejected=row["gain_rejected"],
    )


def _gain_charts(pairs: Reader) -> list[Chart]:
    """Gains of the pairs that were kept and, where the stage recorded all it scored, of those too."""
    charts = [_gain_chart(pairs, "part", "Pairs that were kept")]
    if "scored" in pairs.manifest.tables:
        charts.append(_gain_chart(pairs, "scored", "All pairs that were scored"))
    return charts


def _gain_chart(pairs: Reader, table: str, title: str) -> Chart:
    rows = list(pairs.rows(table, columns=["gain_chosen", "gain_rejected"]))
    groups = [
        ("chosen", "s-chosen", [row["gain_chosen"] for row in rows]),
        ("rejected", "s-rejected", [row["gain_rejected"] for row in rows]),
    ]
    return histogram(f"{title} ({len(rows):,})", groups, unit="nats per token")
