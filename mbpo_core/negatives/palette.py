"""Colours of things in pictures: read off a region, learned for each colour word of the data, painted over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.colours import told_colour
from mbpo_core.negatives.regions import find_regions
from mbpo_core.negatives.tasks import Task, open_tasks
from mbpo_core.records import Sample
from mbpo_core.seeds import derive_seed

if TYPE_CHECKING:
    from mbpo_core.negatives.bench import Bench

_EXAMPLES = 16  # regions looked at for each colour word
_ENOUGH = 4  # fewer that show a colour, and the word stays out of the palette
_COLOURED = 0.25  # saturation from which a pixel counts as coloured
_SHARE = 0.04  # of a region's pixels that must be coloured
_NEAR, _REACH = 30.0, 36.0  # degrees of hue around the region's own: what it is read off, what is painted with it
_FAINT = 0.12  # saturation under which nothing is painted


@dataclass(frozen=True)
class Tone:
    """The colour of a thing: hue in degrees, median saturation, and the value of its bright parts (90 %)."""

    hue: float
    saturation: float
    value: float


def to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(3, H, W) RGB in [0, 1] -> hue in degrees [0, 360), saturation and value in [0, 1], each (H, W).

    Grey has hue 0. Source: hexcone model, A. R. Smith, SIGGRAPH 1978.
    """
    red, green, blue = image
    value, low = image.amax(0), image.amin(0)
    spread = value - low
    safe = spread.clamp_min(torch.finfo(image.dtype).tiny)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    saturation = spread / value.clamp_min(torch.finfo(image.dtype).tiny)
    return (60 * torch.where(spread > 0, sector, 0)) % 360, saturation, value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `to_hsv`: (3, H, W) in [0, 1]."""
    # Channel c is V - V S clip(min(k, 4 - k), 0, 1) with k = (n_c + H / 60) mod 6, n = 5, 3, 1.
    steps = [(offset + hue / 60) % 6 for offset in (5, 3, 1)]
    return torch.stack([value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1) for k in steps])


def tone_of(image: Tensor, region: Tensor) -> tuple[Tone, Tensor] | None:
    """The colour that prevails among a region's coloured pixels, and those that have it.

        hue = direction of the sum of S (cos H, sin H) over pixels with S > 0.25

    Args:
        image: (3, H, W) RGB in [0, 1].
        region: (H, W) bool.

    Returns:
        The tone and (H, W) bool; None where fewer than 4 % of the region are coloured alike.
    """
    hue, saturation, value = to_hsv(image)
    coloured = region & (saturation > _COLOURED)
    least = max(1.0, _SHARE * float(region.sum()))
    if coloured.sum() < least:
        return None
    angle, weight = torch.deg2rad(hue[coloured]), saturation[coloured]
    mean = math.degrees(math.atan2(float((weight * angle.sin()).sum()), float((weight * angle.cos()).sum()))) % 360
    alike = coloured & (_apart(hue, mean) < _NEAR)
    if alike.sum() < least:
        return None
    return Tone(mean, float(saturation[alike].median()), float(value[alike].quantile(0.9))), alike


def repaint(image: Tensor, alike: Tensor, old: Tone, new: Tone) -> tuple[Tensor, Tensor]:
    """What has the old tone, and is connected to `alike`, in the new one; shading stays.

        H' = H - H_old + H_new,   S' = S S_new / S_old,   V' = V V_new / V_old   (S', V' at most 1)

    Args:
        image: (3, H, W) RGB in [0, 1].
        alike: (H, W) bool, pixels of the thing.
        old: its tone.
        new: the tone it gets.

    Returns:
        The image and the (H, W) bool mask of what was painted.
    """
    hue, saturation, value = to_hsv(image)
    paintable = alike | ((_apart(hue, old.hue) < _REACH) & (saturation > _FAINT))
    painted = _connected(alike, paintable)
    changed = to_rgb(
        (hue - old.hue + new.hue) % 360,
        (saturation * new.saturation / old.saturation).clamp(0, 1),
        (value * new.value / old.value).clamp(0, 1),
    )
    return torch.where(painted, changed, image), painted


def learn_palette(bench: Bench) -> dict[str, Tone]:
    """The tone of each colour word of the data: medians over the key regions of samples whose answer tells it.

    Sixteen samples a word, drawn by the run's seed; a word of which fewer than four show a colour is left out, as
    black, white and grey are.
    """
    told: dict[str, list[int]] = {}
    for place, row in enumerate(bench.samples.rows(columns=["kind", "question", "answer", "choices"])):
        if colour := told_colour(**row):
            told.setdefault(colour, []).append(place)
    palette: dict[str, Tone] = {}
    for colour, places in sorted(told.items()):
        drawn = sorted(Random(derive_seed(bench.seed, "palette", colour)).sample(places, min(_EXAMPLES, len(places))))
        tones = _tones(bench, drawn)
        if len(tones) >= _ENOUGH:
            palette[colour] = _middle(tones)
    return palette


def _tones(bench: Bench, places: Sequence[int]) -> list[Tone]:
    rows = [row for place in places for row in bench.samples.slice(place, place + 1)]
    opened = open_tasks(bench.policy, [Sample.model_validate(row) for row in rows], bench.settings.max_new_tokens)
    tasks = [task for task in opened if isinstance(task, Task) and len(task.images) == 1]
    regions = find_regions(bench, tasks)
    found = (
        tone_of(task.images[0] / LEVELS, region.around_point()[0]) for task, region in zip(tasks, regions, strict=True)
    )
    return [one[0] for one in found if one is not None]


def _middle(tones: Sequence[Tone]) -> Tone:
    """Median of each; hues are turned so that the circle's seam lies opposite to their mean."""
    angles = [math.radians(tone.hue) for tone in tones]
    mean = math.degrees(math.atan2(sum(map(math.sin, angles)), sum(map(math.cos, angles))))
    turned = torch.tensor([(tone.hue - mean + 180) % 360 - 180 for tone in tones])
    return Tone(
        (float(turned.median()) + mean) % 360,
        float(torch.tensor([tone.saturation for tone in tones]).median()),
        float(torch.tensor([tone.value for tone in tones]).median()),
    )


def _apart(hue: Tensor, other: float) -> Tensor:
    """Degrees between hues, in [0, 180]."""
    return ((hue - other + 180) % 360 - 180).abs()


def _connected(seeds: Tensor, allowed: Tensor) -> Tensor:
    """(H, W) bool: the allowed pixels that eight-neighbour steps through allowed ones reach from the seeds."""
    reached = seeds & allowed
    while True:
        wider = (max_pool2d(reached[None, None].float(), 3, 1, 1)[0, 0] > 0) & allowed
        if torch.equal(wider, reached):
            return reached
        reached = wider
