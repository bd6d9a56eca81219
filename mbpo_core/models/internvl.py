"""InternVL: an image as square tiles and an overview, framed in the text by tokens of their own.

The processor picks the arrangement of tiles whose shape is nearest to the picture's, stretches the picture over it and
cuts it; the overview is the picture stretched over one more tile, which comes last. A picture of one tile has no
overview. The tower's features of each tile are folded to a quarter.

Shape letters as in `family`; N tiles of a picture, the overview last, S pixels a side of a tile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image as pil
from PIL.Image import Image
from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)
from transformers.models.internvl.processing_internvl import InternVLProcessor as _WithVideo
from transformers.processing_utils import ProcessorMixin

from mbpo_core.errors import ModelError
from mbpo_core.models.family import Family
from mbpo_core.models.groups import ImageInput
from mbpo_core.models.llava_next import LlavaNextFamily
from mbpo_core.models.resize import bicubic
from mbpo_core.models.slots import FramedImages


class InternVLProcessor(_WithVideo):  # type: ignore[misc]
    """transformers' processor less its video part, which needs torchvision; what it saves names the original class."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: Any = None,
        **_: Any,
    ) -> None:
        self.image_seq_length = image_seq_length
        self.start_image_token, self.end_image_token = tokenizer.start_image_token, tokenizer.end_image_token
        self.start_image_token_id = tokenizer.start_image_token_id
        self.end_image_token_id = tokenizer.end_image_token_id
        self.image_token, self.image_token_id = tokenizer.context_image_token, tokenizer.context_image_token_id
        self.video_token = tokenizer.video_token
        self.multimodal_pattern = re.compile(f"(?P<image>{re.escape(self.image_token)})")
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class InternVLFamily(FramedImages, LlavaNextFamily):
    """Adapter of `model_type` internvl, the checkpoints in transformers' own format; no video.

    The native image is the picture itself, because overview and tiles are both resized from it.
    """

    processor_class: ClassVar[Any] = InternVLProcessor
    image_processor_class: ClassVar[Any] = GotOcr2ImageProcessorPil

    def __init__(self, processor: Any, config: Any) -> None:
        Family.__init__(self, processor, config)
        images = processor.image_processor
        self._side = int(images.size.height or 0)
        if not images.do_resize or not self._side == images.size.width or images.resample != pil.Resampling.BICUBIC:
            raise ModelError(
                f"the processor resizes pictures to {dict(images.size)} with filter {images.resample}",
                expected="bicubic resizing to square tiles",
                remedy="Give size of the processor's configuration equal height and width, do_resize true, resample 3.",
            )

    def image_token_ids(self) -> list[int]:
        video = self._processor.tokenizer.convert_tokens_to_ids(self._processor.video_token)
        return [int(self._config.image_token_id), int(video)]

    def slot_text(self, image: ImageInput) -> str:
        maker = self._processor
        return f"{maker.start_image_token}{maker.image_token * image.features}{maker.end_image_token}"

    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        tiles = torch.cat([image.pixel_values.to(model.device, model.dtype) for image in images])
        seen = model.get_image_features(pixel_values=tiles, return_dict=True).pooler_output
        return [features.flatten(0, 1) for features in seen.split([len(image.pixel_values) for image in images])]

    def _read_tiles(self, image: Image) -> Tensor:
        # With what the processor adds to the image processor's own settings, which cut nothing.
        made = self._processor.image_processor(
            [image.convert("RGB")], return_tensors="np", **self._processor.images_kwargs
        )
        return torch.from_numpy(made["pixel_values"]).float()

    def _cut(self, image: Tensor) -> Tensor:
        """(N, 3, S, S): tiles and overview of (3, H, W), without rounding to 8 bits."""
        side, images = self._side, self._processor.image_processor
        _, height, width = image.shape
        columns, rows = get_optimal_tiled_canvas((height, width), (side, side), images.min_patches, images.max_patches)
        stretched = bicubic(image, rows * side, columns * side)
        tiles = stretched.reshape(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
        return tiles if len(tiles) == 1 else torch.cat([tiles, bicubic(image, side, side)[None]])

    def _input(self, tiles: Tensor, height: int, width: int) -> ImageInput:
        return ImageInput(tiles, len(tiles) * self._processor.image_seq_length)
