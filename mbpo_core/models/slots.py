"""Families whose processor writes more into the text than an image's positions: a frame, or where tiles stand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from mbpo_core.models.family import Family
from mbpo_core.models.groups import ImageInput


class FramedImages(Family):
    """A family that fills a rendered prompt's image slots with text before it is cut into tokens."""

    @abstractmethod
    def slot_text(self, image: ImageInput) -> str:
        """What the processor writes for an image."""

    def tokenize(self, text: str, images: Sequence[ImageInput]) -> list[int]:
        token = self._processor.image_token
        before, *parts = text.split(token)
        slots = [self.slot_text(image) for image in images[: len(parts)]]
        filled = slots + [token] * (len(parts) - len(slots))
        return super().tokenize(before + "".join(map("".join, zip(filled, parts, strict=True))), [])
