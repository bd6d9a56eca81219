"""LLaVA-OneVision: LLaVA-NeXT's tiles with a SigLIP tower; features beyond a budget are interpolated to fewer.

Every image is tiled, also beside others: as the processor does with a flat list of images. A nested list, which
says that a prompt has several images, would leave each without tiles.
"""

from __future__ import annotations

from typing import Any

from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor as _WithVideo
from transformers.processing_utils import ProcessorMixin

from mbpo_core.models.llava_next import LlavaNextFamily


class LlavaOnevisionProcessor(_WithVideo):  # type: ignore[misc]
    """transformers' processor less its video part, which needs torchvision; what it saves names the original class."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: Any = None,
        vision_feature_select_strategy: Any = None,
        chat_template: Any = None,
        image_token: str = "<image>",
        video_token: str = "<video>",
        vision_aspect_ratio: str = "anyres_max_9",
        **_: Any,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.vision_feature_select_strategy = vision_feature_select_strategy
        self.image_token = getattr(tokenizer, "image_token", image_token)
        self.video_token = getattr(tokenizer, "video_token", video_token)
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
        self.vision_aspect_ratio = vision_aspect_ratio
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class LlavaOnevisionFamily(LlavaNextFamily):
    """Adapter of `model_type` llava_onevision; no video."""

    processor_class = LlavaOnevisionProcessor
    image_processor_class = LlavaOnevisionImageProcessorPil

    def image_token_ids(self) -> list[int]:
        return [int(self._config.image_token_id), int(self._config.video_token_id)]
