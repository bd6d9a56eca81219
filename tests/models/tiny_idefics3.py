"""Idefics3 and SmolVLM with random weights: tiles of 24 pixels, 2 x 2 features each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from mbpo_core.demo.tiny_llava import build_tokenizer, save
from mbpo_core.models.smolvlm import SmolVLMProcessor
from tests.models.texts import TEXTS

SIDE = 24
LONGEST = 48
END = "<end_of_utterance>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% elif c['type'] == 'image' %}{{ '<image>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def save_tiny_idefics3(folder: Path, *, seed: int = 0) -> Path:
    """Write an Idefics3 of about 60,000 parameters: a SigLIP-like tower, a linear projector, and a Llama."""
    classes = (Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, Idefics3ImageProcessorPil)
    return _save(folder, classes, seed)


def save_tiny_smolvlm(folder: Path, *, seed: int = 0) -> Path:
    """Write a SmolVLM of about 60,000 parameters whose vocabulary projection is its embedding, as in the 256M."""
    classes = (SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMProcessor, SmolVLMImageProcessorPil)
    return _save(folder, classes, seed, tie_word_embeddings=True)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """LLaVA's with the words that name tiles; an utterance's end closes an answer."""
    tokenizer = build_tokenizer(TEXTS)
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    words = ["<fake_token_around_image>", END, "<global-img>", *places]
    tokenizer.add_tokens([AddedToken(word, special=True, normalized=False) for word in words])
    tokenizer.eos_token = END
    return tokenizer


def _save(folder: Path, classes: tuple[Any, Any, Any, Any], seed: int, **settings: Any) -> Path:
    config_class, model_class, processor_class, image_class = classes
    tokenizer = tiny_tokenizer()
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 6, "initializer_range": 0.2,
    }  # fmt: skip
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
        "initializer_range": 0.2, "pad_token_id": None, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, **settings,
    }  # fmt: skip
    config = config_class(
        vision_config=vision, text_config=text, image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2, **settings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        # The default initialisation is so narrow that the answer would hardly depend on the image.
        for parameter in model.model.connector.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    images = image_class(size={"longest_edge": LONGEST}, max_image_size={"longest_edge": SIDE})
    save(folder, model, processor_class(images, tokenizer, image_seq_len=4, chat_template=TEMPLATE))
    return folder
