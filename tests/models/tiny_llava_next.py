"""LLaVAs that cut images into tiles, with random weights: tiles of 24 pixels, 3 x 3 or 4 x 4 features each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from mbpo_core.demo.tiny_llava import CHAT_TEMPLATE, build_tokenizer, save
from mbpo_core.models.llava_onevision import LlavaOnevisionProcessor
from tests.models.texts import TEXTS

SIDE = 24
PINPOINTS = [[24, 48], [48, 24], [48, 48], [24, 72], [72, 24]]
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
}  # fmt: skip
_TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.2, "pad_token_id": None,
}  # fmt: skip


def save_tiny_llava_next(folder: Path, *, seed: int = 0) -> Path:
    """Write a LLaVA-NeXT of about 50,000 parameters on a CLIP tower and a Llama."""
    tokenizer = build_tokenizer(TEXTS)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_VISION, patch_size=8),
        text_config=LlamaConfig(**_TEXT, **_words(tokenizer)),
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS
    )
    processor = LlavaNextProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    return _save(folder, LlavaNextForConditionalGeneration, config, processor, seed)


def save_tiny_llava_onevision(folder: Path, *, seed: int = 0) -> Path:
    """Write a LLaVA-OneVision of about 50,000 parameters on a SigLIP tower and a Qwen2.

    The budget of two tiles makes it interpolate the features of most of the tests' pictures.
    """
    tokenizer = build_tokenizer(TEXTS)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<video>", special=True)]})
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_VISION, patch_size=6, vision_use_head=False),
        text_config=Qwen2Config(**_TEXT, **_words(tokenizer)),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_2",
    )
    images = LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS)
    processor = LlavaOnevisionProcessor(
        images, tokenizer, num_image_tokens=16, vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE, vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip
    return _save(folder, LlavaOnevisionForConditionalGeneration, config, processor, seed)


def _words(tokenizer: Any) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip


def _save(folder: Path, model_class: Any, config: Any, processor: Any, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        # The default initialisation is so narrow that the answer would hardly depend on the image.
        for parameter in model.model.multi_modal_projector.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    save(folder, model, processor)
    return folder
