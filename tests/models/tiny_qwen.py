"""Qwen-VLs with random weights: two or three layers each side, grouped queries, pictures of 256 to 2304 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mbpo_core.demo.tiny_llava import save
from mbpo_core.models.qwen2_5_vl import Qwen2_5_VLProcessor
from mbpo_core.models.qwen2_vl import Qwen2VLProcessor
from mbpo_core.models.qwen3_vl import Qwen3VLProcessor
from tests.models.texts import TEXTS

QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
QWEN_TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\nA B C<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_VISION: dict[str, Any] = {
    "depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
    "initializer_range": 0.2,
}  # fmt: skip
_TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2, "bos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
_VISION_3 = {
    **_VISION, "depth": 3, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 1],
}  # fmt: skip
_TEXT_3 = {"head_dim": 16, "rope_parameters": {**_ROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True}}


def save_tiny_qwen2(folder: Path, *, seed: int = 0) -> Path:
    """Write a Qwen2-VL of about 70,000 parameters whose vocabulary projection is its embedding, as in the 2B."""
    vision = {**_VISION, "embed_dim": 32, "mlp_ratio": 2}
    classes = (Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor)
    return _save(folder, classes, vision, {"rope_parameters": _ROPE}, seed, tie_word_embeddings=True)


def save_tiny_qwen2_5(folder: Path, *, seed: int = 0) -> Path:
    """Write a Qwen2.5-VL of about 80,000 parameters: a tower with a window block and a full block."""
    more = {"intermediate_size": 64, "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
    classes = (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor)
    return _save(folder, classes, {**_VISION, **more}, {"rope_parameters": _ROPE}, seed)


def save_tiny_qwen3(folder: Path, *, seed: int = 0) -> Path:
    """Write a Qwen3-VL of about 130,000 parameters.

    Features of two depths are added behind both language layers; position embeddings of the tower are interpolated;
    heads are wider than the model's width would give, as in the 2B and the 4B.
    """
    classes = (Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor)
    return _save(folder, classes, _VISION_3, _TEXT_3, seed)


def save_tiny_qwen3_moe(folder: Path, *, seed: int = 0) -> Path:
    """Write a Qwen3-VL-MoE of about 150,000 parameters, two of four experts a token."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    classes = (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, Qwen3VLProcessor)
    return _save(folder, classes, _VISION_3, {**_TEXT_3, **experts}, seed)


def _save(
    folder: Path,
    classes: tuple[Any, Any, Any],
    vision: dict[str, Any],
    text: dict[str, Any],
    seed: int,
    **settings: Any,
) -> Path:
    config_class, model_class, processor_class = classes
    tokenizer = byte_level_tokenizer(QWEN_TOKENS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = dict(zip(QWEN_TOKENS, tokenizer.convert_tokens_to_ids(list(QWEN_TOKENS)), strict=True))
    words = {"vocab_size": len(tokenizer), "eos_token_id": ids["<|im_end|>"]}
    config = config_class(
        vision_config=vision, text_config={**_TEXT, **words, **text}, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], **settings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    images = Qwen2VLImageProcessorPil(
        patch_size=4, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
    )
    save(folder, model, processor_class(images, tokenizer, chat_template=QWEN_TEMPLATE))
    return folder


def byte_level_tokenizer(special: Sequence[str], **named: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE that writes no token for the beginning by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640, min_frequency=2, special_tokens=list(special), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", clean_up_tokenization_spaces=False, **named
    )
