"""A LLaVA with random weights and a tiny vocabulary, small enough for any test."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from mbpo_core.demo.tiny_llava import build_processor, build_tokenizer, save

TEXTS = (
    "What color is the banana?",
    "The banana is yellow.",
    "USER: ASSISTANT: Yes No A B C 1 2 3",
    "the cat, the dog",
)


def save_tiny(folder: Path, *, seed: int = 0, pad_is_eos: bool = False) -> Path:
    """Write a model of about 50,000 parameters (two layers each side) that the Auto classes load."""
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
