"""LLaVA-1.5: one fixed-size image, CLIP tower, MLP projector, Llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, LlavaProcessor

from mbpo_core.models.families import Part
from mbpo_core.models.family import Family
from mbpo_core.models.groups import ImageInput
from mbpo_core.records import Blind


class LlavaFamily(Family):
    """Adapter of `model_type` llava."""

    processor_class: ClassVar[Any] = LlavaProcessor

    @classmethod
    def load_processor(cls, folder: Any, **local: Any) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        described, _ = cls.processor_class.get_processor_dict(folder, **local)
        described["chat_template"] = described.get("chat_template") or tokenizer.chat_template
        return cls.processor_class.from_args_and_dict([cls.load_images(folder, **local), tokenizer], described)

    @classmethod
    def load_images(cls, folder: Any, **local: Any) -> Any:
        """The image processor, on Pillow in every environment: torchvision would resize to other pixels."""
        return AutoImageProcessor.from_pretrained(folder, backend="pil", **local)

    def image_token_ids(self) -> list[int]:
        return [int(self._config.image_token_id)]

    def read(self, image: Image) -> ImageInput:
        pixels = self._processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0].float()
        return ImageInput(pixels, self._feature_count(pixels))

    def native(self, image: Image) -> Tensor:
        resized = self._processor.image_processor(
            image.convert("RGB"), do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"][0]
        return torch.from_numpy(np.rint(np.asarray(resized)).clip(0, 255).astype(np.uint8))

    def image_input(self, normalised: Tensor) -> ImageInput:
        return ImageInput(normalised, self._feature_count(normalised))

    def blank_pixels(self, image: ImageInput, blind: Blind) -> Tensor:
        blank = torch.zeros_like(image.pixel_values)
        return blank if blind == "mean" else blank - (self._mean / self._std).to(blank)

    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        pixels = torch.stack([image.pixel_values for image in images]).to(model.device, model.dtype)
        return list(model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output)

    def part_of(self, parameter_name: str) -> Part:
        if "vision_tower." in parameter_name:
            return "vision"
        return "projector" if "multi_modal_projector." in parameter_name else "language"

    def _feature_count(self, pixels: Tensor) -> int:
        _, height, width = pixels.shape
        patch = self._config.vision_config.patch_size
        extra = 0 if self._config.vision_feature_select_strategy == "default" else 1
        return int((height // patch) * (width // patch) + extra)
