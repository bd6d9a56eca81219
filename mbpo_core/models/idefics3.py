"""Idefics3: an image as square tiles and an overview, each announced in the text by its row and column.

The processor resizes a picture until its longer side has a fixed length, stretches it to whole tiles, and cuts it;
the overview is the stretched picture squeezed into one more tile, which comes last. A picture of one tile has no
overview. All resizing is Lanczos's, with rounding to 8 bits after each.

Shape letters as in `family`; N tiles of a picture, the overview last, S pixels a side of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image as pil
from PIL.Image import Image
from torch import Tensor
from transformers import Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    Idefics3ImageProcessorPil,
    get_resize_output_image_size,
)

from mbpo_core.errors import ModelError
from mbpo_core.models.families import Part
from mbpo_core.models.family import Family
from mbpo_core.models.groups import ImageInput
from mbpo_core.models.llava_next import LlavaNextFamily
from mbpo_core.models.resize import lanczos
from mbpo_core.models.slots import FramedImages


class Idefics3Family(FramedImages, LlavaNextFamily):
    """Adapter of `model_type` idefics3.

    The native image is the picture itself, because overview and tiles are both resized from it.
    """

    processor_class: ClassVar[Any] = Idefics3Processor
    image_processor_class: ClassVar[Any] = Idefics3ImageProcessorPil

    def __init__(self, processor: Any, config: Any) -> None:
        Family.__init__(self, processor, config)
        images = processor.image_processor
        self._side = int(images.max_image_size["longest_edge"])
        if not images.do_resize or not images.size.longest_edge or images.resample != pil.Resampling.LANCZOS:
            raise ModelError(
                f"the processor resizes pictures to {dict(images.size)} with filter {images.resample}",
                expected="Lanczos resizing to a longest edge",
                remedy="Give size of the processor's configuration a longest_edge, do_resize true, and resample 1.",
            )

    def slot_text(self, image: ImageInput) -> str:
        # Rows and columns are 0 for a picture of one tile.
        assert image.grid is not None  # `_input` sets it
        _, rows, columns = image.grid
        text: str = self._processor.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
        return text

    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        # Not by get_image_features, which takes tiles of zeros, hence images of the mean colour, for padding.
        tiles = torch.cat([image.pixel_values.to(model.device, model.dtype) for image in images])
        seen = model.model.connector(model.model.vision_model(pixel_values=tiles).last_hidden_state)
        counts = [len(image.pixel_values) for image in images]
        return [features.flatten(0, 1) for features in seen.split(counts)]

    def part_of(self, parameter_name: str) -> Part:
        if "vision_model." in parameter_name:
            return "vision"
        return "projector" if "connector." in parameter_name else "language"

    def language_model(self, model: Any) -> Any:
        return model.model.text_model

    def _read_tiles(self, image: Image) -> Tensor:
        made = self._processor.image_processor([image.convert("RGB")], return_tensors="np")
        return torch.from_numpy(made["pixel_values"][0]).float()

    def _cut(self, image: Tensor) -> Tensor:
        """(N, 3, S, S): tiles and overview of (3, H, W), without rounding to 8 bits."""
        side = self._side
        fitted, (height, width) = self._sizes(*image.shape[1:])
        stretched = lanczos(lanczos(image, *fitted), height, width)
        rows, columns = height // side, width // side
        tiles = stretched.reshape(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
        return tiles if len(tiles) == 1 else torch.cat([tiles, lanczos(stretched, side, side)[None]])

    def _input(self, tiles: Tensor, height: int, width: int) -> ImageInput:
        _, stretched = self._sizes(height, width)
        rows, columns = (length // self._side if len(tiles) > 1 else 0 for length in stretched)
        return ImageInput(tiles, len(tiles) * self._processor.image_seq_len, grid=(1, rows, columns))

    def _sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of a picture after the first resize, and after the second, to whole tiles."""
        images, side = self._processor.image_processor, self._side
        fitted = get_resize_output_image_size(torch.empty(height, width, device="meta"), images.size.longest_edge)
        if not images.do_image_splitting:
            return fitted, (side, side)
        # In the words of the processor, whose floats decide where a side is just a whole number of tiles.
        height, width = fitted
        aspect_ratio = width / height
        if width >= height:
            width = math.ceil(width / side) * side
            height = math.ceil(int(width / aspect_ratio) / side) * side
        else:
            height = math.ceil(height / side) * side
            width = math.ceil(int(height * aspect_ratio) / side) * side
        return fitted, (height, width)
