"""The rejected images made for the pairs of image-side objectives: where they come from, and what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbpo_core.reports.comparing import Captioned, Looks, factor_for, looks_of, side_by_side
from mbpo_core.reports.kinds import plain
from mbpo_core.reports.negatives import NegativeFacts, negatives_section
from mbpo_core.reports.pictures import decode, is_blank, outlined, picture
from mbpo_core.reports.sources import Rounds, filled, parse_meta, percent, same_words, spread_rows
from mbpo_core.stage import Row

GLOBAL = "global"
"""Detector of regions that were not found: the whole image stands for them."""

_WAYS = {
    "question": "another image of the same question",
    "embedding": "a similar image",
    "edit": "the key region recoloured",
}


@dataclass(frozen=True)
class ImageCard:
    """One pair's rejected image.

    Attributes:
        region: the words that its key region belongs to and what found it; "" where no region was looked for.
        found: how the rejected image was found or made; "" where its kind says it all.
        logprobs: mean log p(chosen) on the clean and on the rejected image, nats per token.
    """

    sample_id: str
    round_name: str
    kind: str
    pictures: list[Captioned]
    question: str
    chosen: str
    clean_answer: str
    rejected_answer: str
    logprobs: tuple[float, float]
    region: str
    found: str


@dataclass(frozen=True)
class MadeImages:
    """The section on rejected images.

    Attributes:
        facts: what the images did, as for negatives.
        counts: what was counted, and by what: detectors of regions, ways to a counterfactual image.
    """

    cards: list[ImageCard]
    total: int
    factor: int
    facts: NegativeFacts
    counts: list[tuple[str, list[tuple[str, int]]]]
    says: str


def images_section(rounds: Rounds, wanted: int) -> MadeImages | None:
    """The section, or None where no images were made for pairs.

    Args:
        rounds: the images of each mining.
        wanted: rows shown, taken at even distances and dealt over the rounds.
    """
    rounds = filled(rounds)
    facts = negatives_section(rounds)
    if facts is None:
        return None
    rows = [(index, row) for index, _, row in spread_rows(rounds, wanted)]
    looks = [looks_of(row) for _, row in rows]
    factor = factor_for(looks)
    columns = ["detector", "attack", "attacked_answer"]
    told = [row for _, reader in rounds for row in reader.rows(columns=columns)]
    return MadeImages(
        cards=[
            _card(row, seen, factor, f"round {index + 1}" if len(rounds) > 1 else "")
            for (index, row), seen in zip(rows, looks, strict=True)
        ],
        total=len(told),
        factor=factor,
        facts=facts,
        counts=_counts(told),
        says=_says_the_other(told),
    )


def _card(row: Row, looks: Looks, factor: int, round_name: str) -> ImageCard:
    regions = _regions(row, looks)
    return ImageCard(
        sample_id=row["sample_id"],
        round_name=round_name,
        kind=plain(row["kind"]),
        pictures=side_by_side(looks, row["kind"], row["question"], factor, name="rejected", regions=regions),
        question=row["question"],
        chosen=row["chosen"],
        clean_answer=row["clean_answer"],
        rejected_answer=row["attacked_answer"],
        logprobs=(row["logprob_clean"], row["logprob_rounded"]),
        region=_region_line(row),
        found=how_found(parse_meta(row["attack"])),
    )


def _regions(row: Row, looks: Looks) -> dict[int, Captioned]:
    """The outlined key region of each clean image that has one; none where nothing was found."""
    if row["detector"] in ("", GLOBAL):
        return {}
    masks = [decode(mask) for mask in row["masks"]]
    alt = f"The key region outlined, all else dimmed; {_region_line(row)}"
    return {
        place: ("key region", picture(outlined(clean, mask), alt))
        for place, (clean, mask) in enumerate(zip(looks.clean, masks, strict=False))
        if not is_blank(mask)
    }


def _region_line(row: Row) -> str:
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
    if way == "edit":
        return f"key region recoloured, hue turned by {_number(attack.get('degrees'), '.0f')}°"
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


def _counts(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, int]]]]:
    """How many regions each detector found, and how many images each way."""
    detectors = Counter(row["detector"] for row in rows if row["detector"])
    ways = Counter(str(way) for row in rows if (way := parse_meta(row["attack"]).get("from")) is not None)
    regions = [
        ("not found, so that the whole image stands for them" if name == GLOBAL else f"found by {name}", count)
        for name, count in detectors.most_common()
    ]
    images = [(_WAYS.get(name, name), count) for name, count in ways.most_common()]
    return [(what, found) for what, found in (("Key regions", regions), ("Rejected images", images)) if found]


def _says_the_other(rows: Sequence[Row]) -> str:
    """How often the policy answers another image of the same question as that image's own sample does."""
    asked = [(row, parse_meta(row["attack"])) for row in rows]
    told = [(row, how["answer"]) for row, how in asked if how.get("same_question") is True and "answer" in how]
    return percent(sum(same_words(row["attacked_answer"], str(answer)) for row, answer in told), len(told)) if told else ""
