"""Random Qwen2.5-VLs of any size, built here: a vocabulary of made-up words, each of them one token."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|> ' + m['role'] + ' ' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|> assistant ' }}{% endif %}"
)
_WORDS = ("system", "user", "assistant", "Is", "the", "square", "red", "?", "Yes", "No")


class Shape(NamedTuple):
    """Numbers of a config.json; the picture's side is in pixels."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vision_width: int
    vision_inner: int
    vision_layers: int
    vision_heads: int
    picture: tuple[int, int]


SHAPES = {
    "tiny": Shape(8_192, 256, 1_024, 6, 8, 2, 128, 512, 4, 4, (224, 168)),
    # The widths of Qwen2.5-1.5B in 24 of its 28 layers, and half of Qwen2.5-VL's tower: 1.94 billion parameters.
    "large": Shape(151_936, 1_536, 8_960, 24, 12, 2, 1_280, 3_420, 16, 16, (1_024, 768)),
}


def save_model(folder: Path, shape: Shape, dtype: str, seed: int = 0) -> Path:
    """Write the model with its processor; on an accelerator's machine the weights are drawn there.

    Args:
        folder: written anew.
        dtype: of the weights, float32 or bfloat16.
    """
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = _tokenizer(shape.vocabulary)
    shutil.rmtree(folder, ignore_errors=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(seed)
            model = Qwen2_5_VLForConditionalGeneration(_config(shape, tokenizer))
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    return folder


def text_tokens(folder: Path, question: str) -> int:
    """Tokens of the prompt of a question with one picture, the picture's positions left out."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, chat_template=_TEMPLATE, tokenize=False, add_generation_prompt=True)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) - 1


def _config(shape: Shape, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    ids = dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    half = shape.width // shape.heads // 2
    side = half * 3 // 8  # mrope sections of 1/4, 3/8 and 3/8, as in the released models
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_heads, "max_position_embeddings": 32_768, "bos_token_id": None,
            "pad_token_id": None, "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [half - 2 * side, side, side],
            },
        },
        vision_config={
            "depth": shape.vision_layers, "hidden_size": shape.vision_width, "intermediate_size": shape.vision_inner,
            "num_heads": shape.vision_heads, "out_hidden_size": shape.width, "patch_size": 14, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": list(range(3, shape.vision_layers, 4)),
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )  # fmt: skip


def _tokenizer(vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, *_WORDS]
    words += [f"w{number}" for number in range(vocabulary - len(words))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=_SPECIAL[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|endoftext|>", eos_token="<|im_end|>", padding_side="left",
        additional_special_tokens=list(_SPECIAL), clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _processor(tokenizer: Any) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from mbpo_core.models.qwen2_5_vl import Qwen2_5_VLProcessor

    images = Qwen2VLImageProcessorPil(patch_size=14, temporal_patch_size=2, merge_size=2)
    return Qwen2_5_VLProcessor(images, tokenizer, chat_template=_TEMPLATE)
