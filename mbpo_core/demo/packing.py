"""Packed rows: one picture and all its questions in one sequence, each question seeing the picture and itself only.

    [USER: <image>] [question 1 answer 1] [question 2 answer 2] ... [text-only question answer] ...

The picture is encoded once for about ten questions; text-only questions do not see it. Positions of every question
go on from the picture's end, so that a packed question equals the plain prompt
"USER: <image>\n{question} ASSISTANT: {answer}</s>".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from mbpo_core.demo.questions import Question
from mbpo_core.demo.scenes import Pixels
from mbpo_core.demo.tiny_llava import IMAGE_TOKEN, IMAGE_TOKENS

_TEXT, _IMAGE, _FIRST = 0, 1, 2  # segments of a row: the prefix's text, its image, then the questions
_PADDING = -1

_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@dataclass(frozen=True)
class PackedBatch:
    """Rows ready for the language model.

    Attributes:
        input_ids: (B, L) long, padded right.
        position_ids: (B, L) long.
        attention: (B, 1, L, L) bool, True where a token may look.
        rows, columns: (N,) long, where the N answer tokens are predicted (one before each).
        targets: (N,) long, the answer tokens.
        weights: (N,) float, 1 / sqrt(tokens of the answer), so that a caption does not drown a "Yes".
    """

    input_ids: Tensor
    position_ids: Tensor
    attention: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    weights: Tensor


class Packer:
    """Turns (questions of one picture) into packed rows with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._eos = int(tokenizer.convert_tokens_to_ids("</s>"))
        self._encode = lru_cache(maxsize=200_000)(self._encode_text)
        image = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
        self.prefix = (*self._encode_text("USER: "), *([image] * IMAGE_TOKENS))

    def pack(self, asked: Sequence[Sequence[Question]], text_only: Sequence[Sequence[Question]]) -> PackedBatch:
        """One row for each inner sequence of questions.

        Args:
            asked: for each picture, the questions that see it.
            text_only: for each picture, the questions that do not (as if its positions were masked).
        """
        rows = [
            [(*self._segment(question), True) for question in seeing]
            + [(*self._segment(question), False) for question in blind]
            for seeing, blind in zip(asked, text_only, strict=True)
        ]
        length = len(self.prefix) + max(sum(len(ids) for ids, _, _ in row) for row in rows)
        ids = np.zeros((len(rows), length), dtype=np.int64)
        positions = np.zeros_like(ids)
        segments = np.full_like(ids, _PADDING)
        sighted = np.ones_like(ids, dtype=bool)
        where: list[tuple[int, int, int, float]] = []
        for index, row in enumerate(rows):
            start = len(self.prefix)
            ids[index, :start] = self.prefix
            positions[index, :start] = np.arange(start)
            segments[index, :start] = [_TEXT] * (start - IMAGE_TOKENS) + [_IMAGE] * IMAGE_TOKENS
            for number, (tokens, answer_length, sees) in enumerate(row, start=_FIRST):
                end = start + len(tokens)
                ids[index, start:end] = tokens
                positions[index, start:end] = len(self.prefix) + np.arange(len(tokens))
                segments[index, start:end] = number
                sighted[index, start:end] = sees
                weight = answer_length**-0.5
                where += [(index, at - 1, int(ids[index, at]), weight) for at in range(end - answer_length, end)]
                start = end
        row_index, column, target, weights = zip(*where, strict=True)
        return PackedBatch(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            block_mask(torch.from_numpy(segments), torch.from_numpy(sighted)),
            torch.tensor(row_index),
            torch.tensor(column),
            torch.tensor(target),
            torch.tensor(weights),
        )

    def _segment(self, question: Question) -> tuple[tuple[int, ...], int]:
        prompt = self._encode(f"\n{question.text} ASSISTANT:")
        answer = (*self._encode(f" {question.answer}"), self._eos)
        return (*prompt, *answer), len(answer)

    def _encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def block_mask(segments: Tensor, sighted: Tensor) -> Tensor:
    """Who may look at whom: earlier tokens of the prefix's text, of one's own segment and, if sighted, of the image.

    Args:
        segments: (B, L) long; 0 the prefix's text, 1 its image, 2.. questions, -1 padding.
        sighted: (B, L) bool, False for tokens of text-only questions.

    Returns:
        (B, 1, L, L) bool; padding sees the prefix, so that no row of the mask is empty.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    visible = (key == _TEXT) | (key == query) | ((key == _IMAGE) & sighted[:, :, None])
    return (visible & causal)[:, None]


def normalize(pixels: Sequence[Pixels]) -> Tensor:
    """(B, 3, 48, 48) float32 `pixel_values`, as the processor makes them from the same 8-bit pictures."""
    stacked = torch.from_numpy(np.stack(list(pixels))).permute(0, 3, 1, 2).float()
    return (stacked * (1.0 / 255.0) - _MEAN) / _STD


def image_features(model: LlavaForConditionalGeneration, pixel_values: Tensor) -> Tensor:
    """(B, 36, 128) projected features, one a patch in reading order."""
    return torch.stack(list(model.get_image_features(pixel_values=pixel_values).pooler_output))


def answer_loss(model: LlavaForConditionalGeneration, batch: PackedBatch, pixel_values: Tensor | None) -> Tensor:
    """Weighted mean negative log-likelihood of the answer tokens, nats per token.

    Args:
        pixel_values: (B, 3, 48, 48), or None where every question is text-only.
    """
    inputs = model.get_input_embeddings()(batch.input_ids)
    if pixel_values is not None:
        is_image = (batch.input_ids == model.config.image_token_id)[..., None]
        inputs = inputs.masked_scatter(is_image, image_features(model, pixel_values))
    hidden = model.model.language_model(
        inputs_embeds=inputs, attention_mask=batch.attention, position_ids=batch.position_ids, use_cache=False
    ).last_hidden_state
    logits = model.lm_head(hidden[batch.rows, batch.columns])
    losses = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()
