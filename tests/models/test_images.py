"""Processed pictures are kept by content, up to a size and a number."""

from __future__ import annotations

import torch
from PIL import Image

from mbpo_core.models.groups import ImageInput
from mbpo_core.models.images import ImageCache


class Counting:
    """A processor that notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, picture: Image.Image) -> ImageInput:
        self.asked.append(picture.getpixel((0, 0)))  # type: ignore[arg-type]
        return ImageInput(torch.zeros(3, 4, 4), features=1)


def _picture(shade: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("RGB", size, (shade, 0, 0))


def test_equal_pictures_are_processed_once_and_share_a_key() -> None:
    cache, process = ImageCache(), Counting()
    first, again, other = (cache.read(picture, process) for picture in (_picture(1), _picture(1), _picture(2)))
    assert first is again
    assert first.key != other.key
    assert len(process.asked) == 2
    # The same bytes in another shape are another picture.
    assert cache.read(_picture(1, (2, 8)), process).key != first.key


def test_the_longest_unused_is_forgotten() -> None:
    for cache in (ImageCache(entries=2), ImageCache(limit=2 * 3 * 4 * 4 * 4)):
        process = Counting()
        for shade in (1, 2, 1, 3, 1, 2):
            cache.read(_picture(shade), process)
        assert [red for red, _, _ in process.asked] == [1, 2, 3, 2]
