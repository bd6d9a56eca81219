"""LLaVA-NeXT: an image as an overview and square tiles, unpadded, with a newline feature behind every row.

The processor picks the best of its resolutions for a picture, resizes the picture into it, pads it with black and
cuts it into tiles; the overview is the whole picture squeezed into one more tile. Features over the padding are left
out, so that the number of features depends on the picture's size.

Shape letters as in `family`; N tiles of a picture, the overview first, S pixels a side of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image as pil
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import pad
from transformers import LlavaNextProcessor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from mbpo_core.errors import ModelError
from mbpo_core.models.families import Part
from mbpo_core.models.groups import ImageInput
from mbpo_core.models.llava import LlavaFamily
from mbpo_core.models.resize import bicubic

_LEVELS = 255
_ON_GRID = 0.01
"""An image is one of 8 bits if no value is farther than this from a level; float32 strays by less."""


class LlavaNextFamily(LlavaFamily):
    """Adapter of `model_type` llava_next.

    The native image is the picture itself, because overview and tiles are both resized from it.
    """

    processor_class: ClassVar[Any] = LlavaNextProcessor
    image_processor_class: ClassVar[Any] = LlavaNextImageProcessorPil

    def __init__(self, processor: Any, config: Any) -> None:
        super().__init__(processor, config)
        images = processor.image_processor
        self._side = int(images.size.height or images.size.shortest_edge)
        tile = (images.crop_size or images.size).height or images.size.shortest_edge
        if tile != self._side or images.resample != pil.Resampling.BICUBIC:
            raise ModelError(
                f"the processor resizes tiles of {tile} pixels to {self._side} with filter {images.resample}",
                expected="bicubic resizing, and tiles of the size that the vision tower takes",
                remedy="Give size and crop_size of the processor's configuration the same side, and resample 3.",
            )

    @classmethod
    def load_images(cls, folder: Any, **local: Any) -> Any:
        return cls.image_processor_class.from_pretrained(folder, **local)

    def read(self, image: Image) -> ImageInput:
        return self._input(self._read_tiles(image), image.height, image.width)

    def native(self, image: Image) -> Tensor:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()

    def image_input(self, normalised: Tensor) -> ImageInput:
        """Overview and tiles of one (3, H, W) image; the gradient is that of the resize without rounding.

        The processor rounds to 8 bits in between and takes pictures of 8 bits only. An image on that grid gets
        exactly the processor's values; any other one is resized without rounding.
        """
        _, height, width = normalised.shape
        mean, std = self._mean.to(normalised), self._std.to(normalised)
        image = normalised * std + mean
        tiles = (self._cut(image) - mean) / std
        levels = image.detach() * _LEVELS
        if (levels - levels.round()).abs().max() <= _ON_GRID:
            picture = pil.fromarray(levels.round().clamp(0, _LEVELS).byte().permute(1, 2, 0).cpu().numpy())
            tiles = self._read_tiles(picture).to(tiles) + (tiles - tiles.detach())
        return self._input(tiles, height, width)

    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        tiles = torch.cat([image.pixel_values.to(model.device, model.dtype) for image in images])
        sizes = torch.tensor([image.size for image in images])
        return list(model.get_image_features(pixel_values=tiles, image_sizes=sizes, return_dict=True).pooler_output)

    def part_of(self, parameter_name: str) -> Part:
        return "projector" if "image_newline" in parameter_name else super().part_of(parameter_name)

    def _read_tiles(self, image: Image) -> Tensor:
        """(N, 3, S, S) float32, as the processor makes them."""
        made = self._processor.image_processor([image.convert("RGB")], return_tensors="np")
        return torch.from_numpy(made["pixel_values"][0]).float()

    def _cut(self, image: Tensor) -> Tensor:
        """(N, 3, S, S): overview and tiles of (3, H, W), without rounding to 8 bits."""
        side = self._side
        best = select_best_resolution(image.shape[1:], self._processor.image_processor.image_grid_pinpoints)
        height, width = get_patch_output_size(image, best, ChannelDimension.FIRST)
        (top, bottom), (left, right) = ((free // 2, free - free // 2) for free in (best[0] - height, best[1] - width))
        padded = pad(bicubic(image, height, width), (left, right, top, bottom))
        rows, columns = best[0] // side, best[1] // side
        tiles = padded.reshape(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
        return torch.cat([bicubic(image, side, side)[None], tiles])

    def _input(self, tiles: Tensor, height: int, width: int) -> ImageInput:
        features = self._processor._get_number_of_features(height, width, self._side, self._side)
        features -= self._processor.vision_feature_select_strategy == "default"  # counted in, and cut off by the model
        return ImageInput(tiles, int(features), size=(height, width))
