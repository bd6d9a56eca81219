"""Qwen3-VL: features of several depths of the tower, which enter the first layers of the language model (DeepStack)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor as _WithVideo

from mbpo_core.models.families import Part
from mbpo_core.models.groups import ImageInput
from mbpo_core.models.qwen_vl import QwenVLFamily, WithoutVideo


class Qwen3VLProcessor(WithoutVideo, _WithVideo):  # type: ignore[misc]
    """transformers' processor less its video part."""


class Qwen3VLFamily(QwenVLFamily):
    """Adapter of `model_type` qwen3_vl, and of qwen3_vl_moe, whose language model has experts."""

    processor_class = Qwen3VLProcessor

    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        """M tensors (F, D + n D): what becomes embeddings, then what is added behind the first n layers, in order."""
        found = self._encode(model, images)
        return [torch.cat(parts, dim=-1) for parts in zip(found.pooler_output, *found.deepstack_features, strict=True)]

    def hidden(
        self, model: Any, features: Sequence[Tensor] | None, *, input_ids: Tensor, **language_inputs: Any
    ) -> Tensor:
        if not features:
            return super().hidden(model, None, input_ids=input_ids, **language_inputs)
        width = model.get_input_embeddings().embedding_dim
        shown, *deeper = torch.split(torch.cat(list(features)), width, dim=-1)
        return super().hidden(
            model,
            [shown],
            input_ids=input_ids,
            visual_pos_masks=self.image_positions(input_ids),
            deepstack_visual_embeds=deeper,
            **language_inputs,
        )

    def part_of(self, parameter_name: str) -> Part:
        return "projector" if "visual.deepstack_merger_list." in parameter_name else super().part_of(parameter_name)
