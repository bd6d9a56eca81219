"""Another picture for which the same question has another answer: found in the data, or made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor

from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.filters import agrees
from mbpo_core.negatives.gallery import Entry, Ranked
from mbpo_core.negatives.items import Made, Unmade, measured
from mbpo_core.negatives.regions import Region, find_regions
from mbpo_core.seeds import derive_seed

_TURN = (60.0, 300.0)
"""Least and greatest turn of the hue, degrees: a colour becomes another one."""


def counterfactual(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """By the way that the settings name, and where it finds nothing by the next: question, embedding, edit.

    `how["from"]` says which way it was. The rejected response is the policy's answer to the other picture.
    """
    results: dict[int, Made | Unmade] = {}
    names = list(_WAYS)
    for name in names[names.index(bench.settings.counterfactual) :]:
        places = [place for place in range(len(several)) if place not in results]
        made = _WAYS[name](bench, [several[place] for place in places])
        results.update({place: one for place, one in zip(places, made, strict=True) if one is not None})
    return [results[place] for place in range(len(several))]


def by_question(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade | None]:
    """A sample with the same question and another answer, by a seeded draw among those that can be shown."""
    found: list[Made | Unmade | None] = []
    for known in several:
        others = [entry for entry in bench.gallery.same_question(known.task) if _differs(entry, known)]
        Random(derive_seed(known.seed, "counterfactual")).shuffle(others)
        shown = (_show(bench, known, entry, "question", True) for entry in others)
        found.append(next((made for made in shown if made is not None), None))
    return found


def by_embedding(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade | None]:
    """The nearest picture of a sample with the same question and another answer; else with a question of its kind."""
    ranked = bench.gallery.nearest([known.task for known in several])
    return [_nearest(bench, known, near) for known, near in zip(several, ranked, strict=True)]


def by_edit(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade | None]:
    """The key region recoloured; see `recolour`."""
    return [_edit(bench, known, region) for known, region in zip(several, find_regions(bench, several), strict=True)]


_WAYS: dict[str, Callable[[Bench, Sequence[Known]], list[Made | Unmade | None]]] = {
    "question": by_question,
    "embedding": by_embedding,
    "edit": by_edit,
}
"""In the order in which one stands in for the other; None where there is nothing."""


def recolour(images: Tensor, degrees: float) -> Tensor:
    """The hue turned; saturation and value stay, so that grey stays grey.

        H' = (H + degrees) mod 360

    Args:
        images: (n, 3, H, W) float, RGB in [0, 1].
        degrees: of the colour circle, on which red, green and blue stand 120 apart.

    Returns:
        The same shape, in [0, 1].

    Source: hexcone model of HSV, A. R. Smith, SIGGRAPH 1978.
    """
    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    spread = value - low
    safe = spread.clamp_min(torch.finfo(images.dtype).tiny)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sector + degrees / 60
    # Channel c is V - spread * clip(min(k, 4 - k), 0, 1) with k = (n_c + sector) mod 6, n = 5, 3, 1.
    steps = [(offset + turned) % 6 for offset in (5, 3, 1)]
    return torch.stack([value - spread * torch.minimum(k, 4 - k).clamp(0, 1) for k in steps], dim=1)


def _nearest(bench: Bench, known: Known, ranked: Ranked) -> Made | None:
    same = {entry.sample_id for entry in bench.gallery.same_question(known.task) if _differs(entry, known)}
    near = list(ranked) if same else ranked
    alike = (one for one in near if one[0].sample_id in same) if same else ()
    akin = (one for one in near if one[0].kind == known.task.sample.kind and _differs(one[0], known))
    for candidates, is_same in ((alike, True), (akin, False)):
        for entry, cosine in candidates:
            if (made := _show(bench, known, entry, "embedding", is_same, cosine=cosine)) is not None:
                return made
    return None


def _show(bench: Bench, known: Known, entry: Entry, way: str, same_question: bool, **more: float) -> Made | None:
    """The pictures of a sample in place of the task's; None where they cannot be shown."""
    pictures = bench.gallery.instead(known.task, entry)
    if pictures is None or bench.gallery.too_long(known.task, pictures):
        return None
    how = {"from": way, "sample": entry.sample_id, "answer": entry.answer, "same_question": same_question, **more}
    return Made(pictures=pictures, how=how)


def _edit(bench: Bench, known: Known, region: Region) -> Made | Unmade:
    item = known.item(bench.settings)
    degrees = Random(derive_seed(known.seed, "counterfactual")).uniform(*_TURN)
    turned = (recolour(item.images / LEVELS, degrees) * LEVELS).round()
    levels = torch.where(region.masks[:, None], turned, item.images.float())
    if torch.equal(levels, item.images.float()):
        return Unmade("nothing_to_change", "there is no other picture to show, and the key region has no colour")
    return Made.of(
        measured(item, levels, levels),
        masks=region.masks,
        keywords=region.keywords,
        detector=region.detector,
        how={"from": "edit", "degrees": degrees, **region.how},
    )


def _differs(entry: Entry, known: Known) -> bool:
    sample = known.task.sample
    return not agrees(entry.answer, sample.answer, kind=sample.kind, choices=sample.choices)
