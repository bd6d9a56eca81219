"""What pictures look like to the policy: one vector for the pictures of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import normalize

from mbpo_core.errors import UnusableImage
from mbpo_core.models.encoding import encode
from mbpo_core.models.groups import ImageInput
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy

Keys = tuple[str, ...]
"""Equal for equal pixels."""

_CHUNK = 8192
"""Pictures that one product of the search takes."""

_DECIMALS = 5
"""Cosines that agree to so many decimals are equal: float noise of another batch is a hundredth of it."""


@dataclass(frozen=True)
class Index:
    """The different pictures of some samples; the pictures of one sample count as one thing.

    Attributes:
        vectors: (U, D) float32 on the CPU, each of length 1, see `embed`.
        shown: the samples that show each, in the samples' order; rows are in the order of the first of them.
        rows: row by content of the pictures.
    """

    vectors: Tensor
    shown: list[list[int]]
    rows: dict[Keys, int]

    def cosines(self, queries: Sequence[Tensor]) -> Tensor:
        """(Q, U): of each of Q >= 1 vectors to all, rounded so that the batch they came in does not show."""
        stacked = torch.stack(list(queries))
        cosines = [stacked @ few.T for few in torch.split(self.vectors, _CHUNK)]
        return torch.cat(cosines, dim=1).round(decimals=_DECIMALS)


def embed(policy: Policy, several: Sequence[Sequence[ImageInput]]) -> list[Tensor]:
    """What each sample's pictures look like.

        v = m / |m|,    m = mean over the positions of all pictures of the sample of the projected features

    Returns:
        (D,) float32 each, on the CPU.

    Source: retrieval by the policy's own image embedding, Re-Align arXiv:2502.13146.
    """
    if not several:
        return []
    with torch.no_grad():
        features = iter(encode(policy, [image for images in several for image in images]))
        means = [torch.cat([next(features) for _ in images]).float().mean(0) for images in several]
        return list(normalize(torch.stack(means), dim=1).cpu())


def build_index(policy: Policy, rows: Iterable[Any], order: Sequence[int], batch_size: int) -> Index:
    """One pass over all pictures, of which a batch is in memory; each different one is encoded once.

    Args:
        policy: encodes.
        rows: the pictures of each sample as a row carries them; those that cannot be read are left out.
        order: place of each row among the samples.
        batch_size: samples encoded together.
    """
    shown: dict[Keys, list[int]] = {}
    vectors: dict[Keys, Tensor] = {}
    waiting: dict[Keys, list[ImageInput]] = {}

    def encode_waiting() -> None:
        vectors.update(zip(waiting, embed(policy, list(waiting.values())), strict=True))
        waiting.clear()

    for images, place in zip(rows, order, strict=True):
        read = read_pictures(policy, images)
        if not read:
            continue
        inputs = [one for one, _ in read]
        if keys_of(inputs) not in shown:
            waiting[keys_of(inputs)] = inputs
        shown.setdefault(keys_of(inputs), []).append(place)
        if len(waiting) == batch_size:
            encode_waiting()
    encode_waiting()
    ordered = sorted(shown, key=lambda keys: min(shown[keys]))
    stacked = torch.stack([vectors.pop(keys) for keys in ordered]) if ordered else torch.zeros(0, 1)
    return Index(stacked, [sorted(shown[keys]) for keys in ordered], {keys: row for row, keys in enumerate(ordered)})


def read_pictures(policy: Policy, images: Iterable[Any]) -> list[tuple[ImageInput, Image]]:
    """A row's pictures as the vision tower takes them, and as they are; none where one cannot be read."""
    try:
        pictures = [open_image(image) for image in images]
        inputs = [policy.images.read(picture, policy.family.read) for picture in pictures]
    except UnusableImage:
        return []
    return list(zip(inputs, pictures, strict=True))


def keys_of(images: Iterable[ImageInput]) -> Keys:
    """What tells pictures from others."""
    return tuple(image.key for image in images)
