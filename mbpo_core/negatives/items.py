"""What every way of perturbing takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.models.groups import Prompt
from mbpo_core.negatives.ball import LEVELS


@dataclass(frozen=True)
class Item:
    """One sample to perturb.

    Attributes:
        prompt: the question with the clean images.
        images: (n, 3, H, W) uint8, the clean images at native size.
        chosen: token ids of the reference answer, whose likelihood the attack lowers.
        target: token ids whose likelihood a targeted attack raises instead; None where there is none.
        seed: of this sample's random numbers; nothing else is random.
    """

    prompt: Prompt
    images: Tensor
    chosen: list[int]
    target: list[int] | None
    seed: int


@dataclass(frozen=True)
class Perturbed:
    """The perturbed images of a batch, one entry an item.

    Attributes:
        unrounded: (n, 3, H, W) float32 in [0, 1], before rounding to 8 bits.
        saved: (n, 3, H, W) uint8, as it is stored.
        exact: rounding changed nothing: `saved` is `unrounded`.
        linf: largest pixel change of `saved`, pixels in 0-1.
        steps: gradient steps taken.
    """

    unrounded: list[Tensor]
    saved: list[Tensor]
    exact: list[bool]
    linf: list[float]
    steps: list[int]


def stack_images(items: Sequence[Item]) -> Tensor:
    """(M, 3, H, W) float32 levels of all items' clean images, in order.

    Raises:
        ShapeError: if native sizes differ; such items must be perturbed in separate batches.
    """
    sizes = {tuple(item.images.shape[1:]) for item in items}
    if len(sizes) != 1:
        raise ShapeError(f"images of one batch have sizes {sorted(sizes)}", expected="one native size")
    return torch.cat([item.images for item in items]).float()


def owners(items: Sequence[Item]) -> Tensor:
    """(M,) long: which item each image belongs to."""
    return torch.repeat_interleave(torch.tensor([len(item.images) for item in items]))


def report(items: Sequence[Item], unrounded: Tensor, saved: Tensor, steps: Sequence[int]) -> Perturbed:
    """Deal (M, 3, H, W) levels back to the items and measure them."""
    counts = [len(item.images) for item in items]
    saved_items = list(torch.split(saved.to(torch.uint8).cpu(), counts))
    changes = [
        (image.int() - item.images.int()).abs().max().item() / LEVELS
        for image, item in zip(saved_items, items, strict=True)
    ]
    return Perturbed(
        unrounded=list(torch.split((unrounded / LEVELS).cpu(), counts)),
        saved=saved_items,
        exact=[
            torch.equal(u, s) for u, s in zip(torch.split(unrounded, counts), torch.split(saved, counts), strict=True)
        ],
        linf=changes,
        steps=list(steps),
    )
