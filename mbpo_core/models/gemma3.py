"""Gemma 3: one fixed-size image whose positions see one another; a language model of windows and full layers.

Two rules besides causality decide what sees what: the positions of one image see each other both ways, and in most
layers a token sees only a window of the last ones. transformers counts the window in places of a row; here it is
counted in position ids, which is the same in a plain row and stays right where a row is packed or a blinded image's
positions are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers import Gemma3Processor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from mbpo_core.models.groups import ImageInput
from mbpo_core.models.llava import LlavaFamily
from mbpo_core.models.slots import FramedImages


class Gemma3Family(FramedImages, LlavaFamily):
    """Adapter of `model_type` gemma3, the sizes that see (4B and larger); pictures are not panned and scanned."""

    processor_class: ClassVar[Any] = Gemma3Processor
    own_masks = True

    @classmethod
    def load_images(cls, folder: Any, **local: Any) -> Any:
        return Gemma3ImageProcessorPil.from_pretrained(folder, **local)

    def banned_token_ids(self) -> list[int]:
        # The slot is another token than the positions: an image's start, which in a text would take an image.
        return [*self.image_token_ids(), int(self._processor.image_token_id)]

    def slot_text(self, image: ImageInput) -> str:
        text: str = self._processor.full_image_sequence
        return text

    def read(self, image: Image) -> ImageInput:
        return self.image_input(torch.from_numpy(self._process(image)).float())

    def native(self, image: Image) -> Tensor:
        levels = self._process(image, do_rescale=False, do_normalize=False)
        return torch.from_numpy(np.rint(levels).clip(0, 255).astype(np.uint8))

    def image_input(self, normalised: Tensor) -> ImageInput:
        return ImageInput(normalised, self._processor.image_seq_length)

    def hidden(
        self,
        model: Any,
        features: Sequence[Tensor] | None,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        key_positions: Tensor | None = None,
        **others: Any,
    ) -> Tensor:
        hidden = torch.finfo(model.dtype).min
        full = _additive(attention_mask, input_ids.shape[1], model.dtype)
        if features:  # a cache holds no earlier places then
            blocks = _blocks(self.image_positions(input_ids))
            together = (blocks[:, :, None] == blocks[:, None, :]) & (blocks > 0)[:, None, :]
            full = full.masked_fill(together[:, None], 0.0)
        keys = position_ids if key_positions is None else key_positions
        near = keys[0, :, None, :] > position_ids[0, :, :, None] - self.language_model(model).config.sliding_window
        masks = {"full_attention": full, "sliding_attention": full.masked_fill(~near[:, None], hidden)}
        return super().hidden(
            model,
            features,
            input_ids=input_ids,
            attention_mask=masks,  # type: ignore[arg-type]
            position_ids=position_ids,
            **others,
        )

    def _process(self, image: Image, **changed: Any) -> Any:
        """(3, H, W) array; as the processor calls the image processor, whose own settings leave panning open."""
        settings = {**self._processor.images_kwargs, **changed}
        return self._processor.image_processor(image.convert("RGB"), return_tensors="np", **settings)["pixel_values"][0]


def _additive(mask: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, L, keys) additive of a mask that is so already, or of (B, keys) bool, which is causal too."""
    if mask.ndim == 4:
        return mask
    keys = mask.shape[1]
    causal = torch.ones(length, keys, dtype=torch.bool, device=mask.device).tril(keys - length)
    seen = causal & mask[:, None, :]
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _blocks(image: Tensor) -> Tensor:
    """(B, L) long of (B, L) bool: 0 outside images, else the number of the run of image positions."""
    starts = image & ~torch.nn.functional.pad(image, (1, 0))[:, :-1]
    return torch.where(image, starts.long().cumsum(1), 0)
