"""Models and questions of the benchmarks: random weights, because no number here depends on what a model has learnt."""

from __future__ import annotations

import io
import math
import random
import shutil
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import SCRATCH

PATCH = 8
POSITIONS = 1024
VOCABULARY = 2048
RECIPE = 1
"""Part of the folder's name; to be raised when anything below changes."""

_SYLLABLES = ["".join(letters) for letters in product("bdfgklmnprst", "aeiou")]
WORDS = [first + second for first, second in product(_SYLLABLES[:30], _SYLLABLES[30:])]
"""900 words, each of them one token."""


class Question(NamedTuple):
    """A question with its picture as a file holds it."""

    text: str
    png: bytes


def questions(count: int, image_tokens: int, seed: int = 0) -> list[Question]:
    """Questions of eight words about pictures that all differ, at the model's own size."""
    numbers, words = np.random.default_rng(seed), random.Random(seed)
    return [Question(" ".join(words.sample(WORDS, 8)), _picture(numbers, image_tokens)) for _ in range(count)]


def answer(tokens: int, seed: int) -> str:
    """A text that is `tokens` tokens long with the EOS that closes it."""
    return " ".join(random.Random(seed).sample(WORDS, tokens - 1))


def model_folder(image_tokens: int) -> Path:
    """A LLaVA of about 3.5 million parameters whose pictures fill `image_tokens` positions; written once."""
    folder = SCRATCH / f"llava-{RECIPE}-{image_tokens}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _write(partial, image_tokens)
        partial.rename(folder)
    return folder


def pixels(image_tokens: int) -> int:
    """Height and width of the pictures."""
    return PATCH * math.isqrt(image_tokens)


def _picture(numbers: np.random.Generator, image_tokens: int) -> bytes:
    from PIL import Image

    side = pixels(image_tokens)
    tiles = numbers.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(tiles.repeat(4, axis=0).repeat(4, axis=1)).save(buffer, format="PNG")
    return buffer.getvalue()


def _write(folder: Path, image_tokens: int) -> None:
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = _tokenizer()
    side = pixels(image_tokens)
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, image_size=side,
        patch_size=PATCH, projection_dim=128,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=576, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=POSITIONS, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=image_tokens, vision_feature_layer=-1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(image_tokens)
        model = LlavaForConditionalGeneration(config)
        # As narrow as it comes, the projector would leave answers that hardly depend on the image.
        for parameter in model.model.multi_modal_projector.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    _processor(tokenizer, side).save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from mbpo_core.demo.tiny_llava import SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" " + " ".join(WORDS), "USER: ASSISTANT: " + " ".join(WORDS)] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": "<image>"},
    )


def _processor(tokenizer: Any, side: int) -> Any:
    from transformers import LlavaProcessor
    from transformers.models.clip import CLIPImageProcessorPil

    from mbpo_core.demo.tiny_llava import CHAT_TEMPLATE

    size = {"height": side, "width": side}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
