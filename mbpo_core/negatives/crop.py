"""A random crop of a small area, scaled back up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mbpo_core.config import NegativesConfig
from mbpo_core.models.resize import bicubic
from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.items import Item, Made, measured

_ASPECT = 4 / 3
"""A crop is at most so many times as wide as it is high, or as high as it is wide."""

_TRIES = 10

Box = tuple[int, int, int, int]
"""Top, left, height, width, pixels."""


def crop(bench: Bench, several: Sequence[Known]) -> list[Made]:
    """Each picture cropped at a box of its own; see `crop_images`."""
    return [crop_images(known.item(bench.settings), bench.settings) for known in several]


def crop_images(item: Item, settings: NegativesConfig) -> Made:
    """RandomResizedCrop at native size, resized back to it and rounded to 8 bits.

    The resize is the bicubic one of the image processors (mDPO's is bilinear); going up, it needs no antialiasing.
    Rounding belongs to the making: the model is asked about the 8-bit picture alone.

    Source: mDPO arXiv:2406.11839, area share in (0.01, 0.2).
    """
    generator = torch.Generator().manual_seed(item.seed)
    _, _, height, width = item.images.shape
    boxes = [draw_box(height, width, settings.crop_min, settings.crop_max, generator) for _ in item.images]
    cut = [
        image[:, top : top + high, left : left + wide]
        for image, (top, left, high, wide) in zip(item.images, boxes, strict=True)
    ]
    levels = torch.stack([bicubic(image / LEVELS, height, width) * LEVELS for image in cut]).round()
    return Made.of(measured(item, levels, levels), how={"crops": [list(box) for box in boxes]})


def draw_box(height: int, width: int, least: float, most: float, generator: torch.Generator) -> Box:
    """The box of one crop, whole pixels, inside the picture.

        a ~ U(least, most) H W,    log r ~ U(log 3/4, log 4/3),    w = round sqrt(a r),    h = round sqrt(a / r)

    at a uniform place. A box that does not fit is drawn again; after ten, the last one is cut to the picture.

    Source: RandomResizedCrop of torchvision.
    """
    for _ in range(_TRIES):
        area = height * width * (least + (most - least) * _uniform(generator))
        ratio = _ASPECT ** (2 * _uniform(generator) - 1)
        high, wide = (max(1, round(math.sqrt(side))) for side in (area / ratio, area * ratio))
        if high <= height and wide <= width:
            break
    high, wide = min(high, height), min(wide, width)
    top, left = (int(_uniform(generator) * (free + 1)) for free in (height - high, width - wide))
    return top, left, high, wide


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64).item()
