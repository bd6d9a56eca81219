"""Models with random weights and a tiny vocabulary, one of every family, small enough for any test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from mbpo_core.demo.tiny_llava import build_processor, build_tokenizer, save
from tests.models.texts import TEXTS
from tests.models.tiny_gemma3 import save_tiny_gemma3
from tests.models.tiny_idefics3 import save_tiny_idefics3, save_tiny_smolvlm
from tests.models.tiny_internvl import save_tiny_internvl
from tests.models.tiny_llava_next import save_tiny_llava_next, save_tiny_llava_onevision
from tests.models.tiny_qwen import save_tiny_qwen2, save_tiny_qwen2_5, save_tiny_qwen3, save_tiny_qwen3_moe


def save_tiny(folder: Path, *, seed: int = 0, pad_is_eos: bool = False) -> Path:
    """Write a LLaVA of about 50,000 parameters (two layers each side) that the Auto classes load."""
    tokenizer = build_tokenizer(TEXTS)
    if pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=256, initializer_range=0.2,
        pad_token_id=None, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=36, vision_feature_layer=-1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        # The default initialisation is so narrow that the answer would hardly depend on the image.
        for parameter in model.model.multi_modal_projector.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    save(folder, model, build_processor(tokenizer))
    return folder


TINY: dict[str, Callable[[Path], Path]] = {
    "gemma3": save_tiny_gemma3,
    "idefics3": save_tiny_idefics3,
    "internvl": save_tiny_internvl,
    "llava": save_tiny,
    "llava_next": save_tiny_llava_next,
    "llava_onevision": save_tiny_llava_onevision,
    "qwen2_5_vl": save_tiny_qwen2_5,
    "qwen2_vl": save_tiny_qwen2,
    "qwen3_vl": save_tiny_qwen3,
    "qwen3_vl_moe": save_tiny_qwen3_moe,
    "smolvlm": save_tiny_smolvlm,
}
"""model_type -> writes a tiny model of it; every family has one, so that every contract is tested on it."""
