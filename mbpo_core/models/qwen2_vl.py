"""Qwen2-VL: a tower that sees all of a picture in every block."""

from __future__ import annotations

from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor as _WithVideo

from mbpo_core.models.qwen_vl import QwenVLFamily, WithoutVideo


class Qwen2VLProcessor(WithoutVideo, _WithVideo):  # type: ignore[misc]
    """transformers' processor less its video part."""


class Qwen2VLFamily(QwenVLFamily):
    """Adapter of `model_type` qwen2_vl."""

    processor_class = Qwen2VLProcessor
