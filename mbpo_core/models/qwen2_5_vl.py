"""Qwen2.5-VL: a tower with window attention."""

from __future__ import annotations

from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor as _WithVideo

from mbpo_core.models.qwen_vl import QwenVLFamily, WithoutVideo


class Qwen2_5_VLProcessor(WithoutVideo, _WithVideo):  # type: ignore[misc]
    """transformers' processor less its video part."""


class Qwen2_5_VLFamily(QwenVLFamily):
    """Adapter of `model_type` qwen2_5_vl."""

    processor_class = Qwen2_5_VLProcessor
