"""Attention of packed rows, piece by piece: nothing is computed that a completion may not see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "mbpo_segments"
"""Under this name transformers' models find `attend`."""

SPLICE = 40.0
"""What putting a prompt's key and value before a completion's costs, in (query, key) pairs; measured on a CPU."""


@dataclass(frozen=True)
class Segments:
    """Of what each row of a batch consists: (tokens of the prompt, tokens of completion 1, ...); padding follows."""

    rows: tuple[tuple[int, ...], ...]
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def mask(self, prompt: int, completion: int, like: Tensor) -> Tensor:
        """(C, P + C) additive: a completion's token sees the prompt and its own completion up to itself."""
        key = (prompt, completion)
        if key not in self._masks:
            hidden = torch.ones(completion, prompt + completion, dtype=torch.bool).triu(prompt + 1)
            mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(like.dtype).min)
            self._masks[key] = mask.to(like.device, like.dtype)
        return self._masks[key]


def pairs(segments: tuple[int, ...]) -> float:
    """(query, key) pairs that `attend` computes for one row, copies included."""
    prompt, *completions = segments
    if len(completions) < 2:
        return sum(segments) ** 2 / 2
    return prompt**2 / 2 + sum((length + SPLICE) * (prompt + length) for length in completions)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; of rows that are packed, segment by segment.

    A prompt attends causally to itself; each completion to the prompt and causally to itself. That equals attention
    under `layout.block_mask`, without its (P + sum C)^2 pairs and without the mask.

    Args:
        module: the attention layer.
        query: (B, heads, L, width); key and value: (B, key heads, L, width).
        attention_mask: as transformers makes it; not looked at where there are segments.
        scaling: of the scores.
        segments: of the rows; None for any other batch.
        others: what transformers passes on.

    Returns:
        (B, L, heads, width), zero at padding, and no weights.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if segments is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return output
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    rows = [
        _row(query[row : row + 1], key[row : row + 1], value[row : row + 1], lengths, segments, scaling)
        for row, lengths in enumerate(segments.rows)
    ]
    return torch.cat(rows).transpose(1, 2).contiguous(), None


def _row(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], segments: Segments, scaling: float | None
) -> Tensor:
    """(1, heads, L, width) of one row."""
    prompt, *completions = lengths
    if len(completions) < 2:  # one completion goes on where its prompt ends
        prompt, completions = sum(lengths), []
    own = (slice(None), slice(None), slice(0, prompt))
    pieces = [scaled_dot_product_attention(query[own], key[own], value[own], is_causal=True, scale=scaling)]
    start = prompt
    for length in completions:
        here = (slice(None), slice(None), slice(start, start + length))
        seen, told = (torch.cat([states[own], states[here]], dim=2) for states in (key, value))
        mask = segments.mask(prompt, length, query)
        pieces.append(scaled_dot_product_attention(query[here], seen, told, attn_mask=mask, scale=scaling))
        start += length
    pieces.append(query.new_zeros((*query.shape[:2], query.shape[2] - start, value.shape[3])))
    return torch.cat(pieces, dim=2)


def install(language: Any) -> None:
    """Let a language model that uses torch's attention use `attend`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    language.config._attn_implementation = NAME
