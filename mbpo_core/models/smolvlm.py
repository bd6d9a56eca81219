"""SmolVLM2: Idefics3 with a smaller tower and language model; the first SmolVLM names itself idefics3."""

from __future__ import annotations

from typing import Any

from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor as _WithVideo
from transformers.processing_utils import ProcessorMixin

from mbpo_core.models.idefics3 import Idefics3Family


class SmolVLMProcessor(_WithVideo):  # type: ignore[misc]
    """transformers' processor less its video part, which needs torchvision; what it saves names the original class."""

    apply_chat_template = ProcessorMixin.apply_chat_template  # the original asks its video part for frames a second

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_len: int = 169,
        chat_template: Any = None,
        **_: Any,
    ) -> None:
        self.fake_image_token = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
        self.image_token = getattr(tokenizer, "image_token", "<image>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.end_of_utterance_token = getattr(tokenizer, "end_of_utterance_token", "<end_of_utterance>")
        self.global_image_token = getattr(tokenizer, "global_image_token", "<global-img>")
        self.video_token = getattr(tokenizer, "video_token", "<video>")
        self.image_seq_len = image_seq_len
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class SmolVLMFamily(Idefics3Family):
    """Adapter of `model_type` smolvlm; no video."""

    processor_class = SmolVLMProcessor
    image_processor_class = SmolVLMImageProcessorPil
