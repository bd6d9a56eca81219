"""LLaVA-1.5: one fixed-size image, CLIP tower, MLP projector, Llama."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mbpo_core.errors import ShapeError
from mbpo_core.models.families import Part
from mbpo_core.records import Blind


class LlavaFamily:
    """Adapter of `model_type` llava; see `families.Family` for what each method promises."""

    pixel_bounds = (0.0, 1.0)

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor = processor
        self._config = config
        image_processor = processor.image_processor
        self._mean = torch.tensor(image_processor.image_mean).view(3, 1, 1)
        self._std = torch.tensor(image_processor.image_std).view(3, 1, 1)

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        text: str = self._processor.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return text

    def tokenize(self, text: str, images: list[Image]) -> tuple[list[int], Tensor]:
        # A template that writes BOS itself must not get a second one from the tokenizer.
        bos = self._processor.tokenizer.bos_token
        special = not (bos and text.startswith(bos))
        encoded = self._processor(
            images=[image.convert("RGB") for image in images] or None,
            text=text,
            add_special_tokens=special,
            return_tensors="pt",
        )
        pixels = encoded["pixel_values"].float() if images else torch.zeros(0, 3, 1, 1)
        return encoded["input_ids"][0].tolist(), pixels

    def image_token_ids(self) -> list[int]:
        return [int(self._config.image_token_id)]

    def feature_count(self, pixel_values: Tensor) -> int:
        images, _, height, width = pixel_values.shape
        patch = self._config.vision_config.patch_size
        extra = 0 if self._config.vision_feature_select_strategy == "default" else 1
        return int(images * ((height // patch) * (width // patch) + extra))

    def native(self, image: Image) -> Tensor:
        resized = self._processor.image_processor(
            image.convert("RGB"), do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"][0]
        return torch.from_numpy(np.rint(np.asarray(resized)).clip(0, 255).astype(np.uint8))

    def pixel_values(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images have shape {tuple(images.shape)}", expected="(M, 3, H, W) in [0, 1]")
        return (images - self._mean.to(images)) / self._std.to(images)

    def blind_pixels(self, pixel_values: Tensor, blind: Blind) -> Tensor:
        blank = torch.zeros_like(pixel_values)
        return blank if blind == "mean" else blank - (self._mean / self._std).to(pixel_values)

    def encode(self, model: Any, pixel_values: Tensor) -> list[Tensor]:
        return list(model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output)

    def forward(self, model: Any, features: list[Tensor] | None, **inputs: Any) -> Any:
        if features:
            inputs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=features)}
        return model(**inputs)

    def part_of(self, parameter_name: str) -> Part:
        if "vision_tower." in parameter_name:
            return "vision"
        return "projector" if "multi_modal_projector." in parameter_name else "language"
