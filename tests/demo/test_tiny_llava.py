"""The tiny LLaVA: tokenizer, processor, and packed rows that equal plain prompts."""

from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mbpo_core.demo import packing, tiny_llava
from mbpo_core.demo.corpus import base_examples, tokenizer_texts
from mbpo_core.demo.objects import COLORS, OBJECTS
from mbpo_core.demo.questions import Question
from mbpo_core.demo.scenes import Scene, render


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    return tiny_llava.build_processor(tiny_llava.build_tokenizer(tokenizer_texts()))


@pytest.fixture(scope="module")
def model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    return tiny_llava.build_model(processor.tokenizer, 0).eval()


def example(index: int) -> tuple[Scene, list[Question], list[Question]]:
    return next(itertools.islice(base_examples("test", 0, 1.0), index, None))


def chat(question: str, answer: str | None = None) -> list[dict[str, object]]:
    turns: list[dict[str, object]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    ]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


def test_every_object_color_and_short_answer_is_one_token(processor: LlavaProcessor) -> None:
    short = [*"ABCD", *"0123456789", "Yes", "No", "left", "right", "top", "bottom"]
    lengths = {word: len(processor.tokenizer(f" {word}")["input_ids"]) for word in (*OBJECTS, *COLORS, *short)}
    assert {word for word, length in lengths.items() if length != 1} == set()


def test_tokenizer_is_lossless_and_reproducible(processor: LlavaProcessor) -> None:
    again = tiny_llava.build_tokenizer(tokenizer_texts())
    assert again.get_vocab() == processor.tokenizer.get_vocab()
    for question in example(3)[1]:
        ids = processor.tokenizer(question.text)["input_ids"]
        assert processor.tokenizer.decode(ids) == question.text


def test_size(model: LlavaForConditionalGeneration) -> None:
    assert 1.3e6 < sum(parameter.numel() for parameter in model.parameters()) < 2e6


def test_processor_pixels_equal_training_pixels(processor: LlavaProcessor) -> None:
    pixels = render(example(0)[0])
    ours = packing.normalize([pixels])
    theirs = processor.image_processor(images=[Image.fromarray(pixels)], return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_packed_ids_equal_the_chat_template(processor: LlavaProcessor) -> None:
    scene, asked, _ = example(1)
    packer = packing.Packer(processor.tokenizer)
    for question in asked:
        row = packer.pack([[question]], [[]]).input_ids[0].tolist()
        text = processor.apply_chat_template(chat(question.text, question.answer))
        plain = processor(images=[Image.fromarray(render(scene))], text=[text], return_tensors="pt")
        assert row == plain["input_ids"][0].tolist()


def test_packed_loss_equals_plain_prompts(processor: LlavaProcessor, model: LlavaForConditionalGeneration) -> None:
    rows = [example(4), example(5)]
    packer = packing.Packer(processor.tokenizer)
    pixel_values = packing.normalize([render(scene) for scene, _, _ in rows])
    with torch.no_grad():
        packed = packing.answer_loss(
            model, packer.pack([asked for _, asked, _ in rows], [text for _, _, text in rows]), pixel_values
        )
        total = weight = 0.0
        for index, (_, asked, text_only) in enumerate(rows):
            for question, sees in [(item, True) for item in asked] + [(item, False) for item in text_only]:
                logprobs = plain_logprobs(processor, model, question, pixel_values[index : index + 1], sees)
                total -= float(logprobs.sum()) * len(logprobs) ** -0.5
                weight += len(logprobs) ** 0.5
    assert float(packed) == pytest.approx(total / weight, rel=1e-5)


def plain_logprobs(
    processor: LlavaProcessor,
    model: LlavaForConditionalGeneration,
    question: Question,
    pixel_values: torch.Tensor,
    sees: bool,
) -> torch.Tensor:
    """(T,) log-probabilities of the answer's tokens in one ordinary forward pass."""
    prompt = processor.apply_chat_template(chat(question.text), add_generation_prompt=True)
    whole = processor.apply_chat_template(chat(question.text, question.answer))
    expand = "<image>" * tiny_llava.IMAGE_TOKENS
    ids = processor.tokenizer(whole.replace("<image>", expand), return_tensors="pt")["input_ids"]
    start = len(processor.tokenizer(prompt.replace("<image>", expand))["input_ids"])
    mask = torch.ones_like(ids)
    if not sees:
        mask[ids == model.config.image_token_id] = 0
    positions = torch.arange(ids.shape[1])[None]
    logits = model(input_ids=ids, pixel_values=pixel_values, attention_mask=mask, position_ids=positions).logits
    scores = logits[0, start - 1 : -1].log_softmax(-1)
    return scores.gather(-1, ids[0, start:, None])[:, 0]
