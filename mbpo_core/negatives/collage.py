"""The question asked of one picture among several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

import torch
from torch import Tensor

from mbpo_core.models.resize import bicubic
from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.gallery import Entry
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.swaps import uncapitalised
from mbpo_core.seeds import derive_seed

QUESTIONS = {
    "sequence": "In image {place}, {question}",
    "grid": "In the picture at the {place}, {question}",
    "picture_in_picture": "In the small picture at the {place}, {question}",
}
"""How the question says which picture it is about, by layout."""

_DOWN = {1: ("",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_ACROSS = {2: ("left", "right"), 3: ("left", "centre", "right")}
_EMPTY = 255  # between and beside the tiles: white
_INSET = 0.5  # side of the small picture, as a share of the large one's

Slot = tuple[int, int, int, int]
"""Top, left, height, width of a place on a canvas, pixels."""


def collage(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """The sample's picture among `collage_images` - 1 of other samples, and the question asked of it by its place.

    The row has no wrong picture: the collage is its clean one, and the rejected response is what the policy answers
    to it, where that is wrong. Samples with several pictures are left out.

    MIA-DPO also asks that the answer pay little attention to the right picture; that filter is not done, nor are
    those by perplexity and edit distance.

    Source: MIA-DPO arXiv:2410.17637: sequence, grid collage, picture in picture.
    """
    return [_collage(bench, known) for known in several]


def _collage(bench: Bench, known: Known) -> Made | Unmade:
    if len(known.task.images) != 1:
        return Unmade("nothing_to_change", f"the sample has {len(known.task.images)} pictures; one is put among others")
    settings = bench.settings
    random = Random(derive_seed(known.seed, "collage"))
    wanted = 1 if settings.layout == "picture_in_picture" else settings.collage_images - 1
    others = list(islice(_others(bench, known, random), wanted))
    if len(others) < wanted:
        return Unmade("no_other_image", f"{wanted} other pictures are wanted, {len(others)} can be read")
    own, beside = known.task.images[0], [picture for _, picture in others]
    place, shown = _LAYOUTS[settings.layout](own, beside, random)
    question = QUESTIONS[settings.layout].format(place=place, question=uncapitalised(known.task.sample.question))
    how = {"others": [entry.sample_id for entry, _ in others], "place": place}
    too_long = bench.gallery.too_long(known.task, shown, question)
    # The same list twice says that no picture is wrong.
    return too_long or Made(pictures=shown, images=shown, question=question, how=how)


def _others(bench: Bench, known: Known, random: Random) -> Iterator[tuple[Entry, Tensor]]:
    """Pictures of other samples in a random order, each sample once."""
    entries, met = bench.gallery.entries, set[int]()
    while len(met) < len(entries):
        number = random.randrange(len(entries))
        if number not in met:
            met.add(number)
            if (pictures := bench.gallery.instead(known.task, entries[number])) is not None:
                yield entries[number], pictures[0]


def in_sequence(own: Tensor, others: Sequence[Tensor], random: Random) -> tuple[str, list[Tensor]]:
    """All pictures, (3, H, W) uint8, one behind the other, each at its native size; places count from 1."""
    place = random.randrange(len(others) + 1)
    return str(place + 1), [*others[:place], own, *others[place:]]


def in_grid(own: Tensor, others: Sequence[Tensor], random: Random) -> tuple[str, list[Tensor]]:
    """One picture of the own one's size, cut into equal tiles; cells that are left over stay white."""
    count = len(others) + 1
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cell = random.randrange(count)
    _, height, width = own.shape
    canvas = torch.full_like(own, _EMPTY)
    for number, picture in enumerate([*others[:cell], own, *others[cell:]]):
        row, column = divmod(number, columns)
        top, left = row * height // rows, column * width // columns
        put(canvas, picture, (top, left, height // rows, width // columns))
    return _name(_DOWN[rows][cell // columns], _ACROSS[columns][cell % columns]), [canvas]


def in_picture(own: Tensor, others: Sequence[Tensor], random: Random) -> tuple[str, list[Tensor]]:
    """The own picture, small, in a corner of another one."""
    canvas = others[0].clone()
    _, height, width = canvas.shape
    row, column = random.randrange(2), random.randrange(2)
    high, wide = max(1, int(height * _INSET)), max(1, int(width * _INSET))
    put(canvas, own, (row * (height - high), column * (width - wide), high, wide))
    return _name(_DOWN[2][row], _ACROSS[2][column]), [canvas]


_LAYOUTS = {"sequence": in_sequence, "grid": in_grid, "picture_in_picture": in_picture}
"""Each gives the words for the own picture's place, and the pictures of the collage."""


def put(canvas: Tensor, picture: Tensor, slot: Slot) -> None:
    """Paste a picture into the middle of a slot, as large as it fits there with its proportions (bicubic)."""
    top, left, high, wide = slot
    _, height, width = picture.shape
    scale = min(high / height, wide / width)
    small = (min(high, max(1, round(height * scale))), min(wide, max(1, round(width * scale))))
    pasted = (bicubic(picture / LEVELS, *small) * LEVELS).round().to(torch.uint8)
    top, left = top + (high - small[0]) // 2, left + (wide - small[1]) // 2
    canvas[:, top : top + small[0], left : left + small[1]] = pasted


def _name(down: str, across: str) -> str:
    """The words for a place: top left, right, centre."""
    return across if down in ("", "middle") and across == "centre" else f"{down} {across}".strip()
