"""The rejected images made for the pairs of image-side objectives: where they come from, and what they did."""

from __future__ import annotations

from dataclasses import dataclass

from mbpo_core.reports.comparing import Captioned, Looks, factor_for, looks_of, side_by_side
from mbpo_core.reports.finding import GLOBAL, how_found, region_line
from mbpo_core.reports.gallery import Controls, Traits, controls, object_of
from mbpo_core.reports.kinds import plain
from mbpo_core.reports.negatives import NegativeFacts, negatives_section
from mbpo_core.reports.pictures import decode, is_blank, outlined, picture
from mbpo_core.reports.sources import Rounds, filled, parse_meta, spread_rows
from mbpo_core.stage import Row


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
    question_kind: str
    object: str
    region: str
    found: str

    @property
    def traits(self) -> Traits:
        clean, rejected = self.logprobs
        return Traits({"kind": self.question_kind, "object": self.object}, {"loss": clean - rejected})


@dataclass(frozen=True)
class MadeImages:
    """The section on rejected images; `facts` say what these did, as for negatives."""

    cards: list[ImageCard]
    controls: Controls
    total: int
    factor: int
    facts: NegativeFacts


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
    looks = [looks_of(row, row["kind"], parse_meta(row["attack"])) for _, row in rows]
    factor = factor_for(looks)
    cards = [
        _card(row, seen, factor, f"round {index + 1}" if len(rounds) > 1 else "")
        for (index, row), seen in zip(rows, looks, strict=True)
    ]
    names = {"kind": "kind", "object": "object"}
    return MadeImages(
        cards=cards,
        controls=controls(cards, names, {"loss": "what the rejected image costs log p(chosen)"}),
        total=sum(reader.count() for _, reader in rounds),
        factor=factor,
        facts=facts,
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
        question_kind=plain(row["question_kind"]),
        object=object_of(parse_meta(row["meta"])),
        region=region_line(row),
        found=how_found(parse_meta(row["attack"])),
    )


def _regions(row: Row, looks: Looks) -> dict[int, Captioned]:
    """The outlined key region of each clean image that has one; none where nothing was found."""
    if row["detector"] in ("", GLOBAL):
        return {}
    masks = [decode(mask) for mask in row["masks"]]
    alt = f"The key region outlined, all else dimmed; {region_line(row)}"
    return {
        place: ("key region", picture(outlined(clean, mask), alt))
        for place, (clean, mask) in enumerate(zip(looks.clean, masks, strict=False))
        if not is_blank(mask)
    }
