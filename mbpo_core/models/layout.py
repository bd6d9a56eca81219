"""Prompts and completions as padded rows of one batch, and what of a prompt a blinded model sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.models.groups import Prompt
from mbpo_core.models.policy import Policy
from mbpo_core.records import Blind


@dataclass(frozen=True)
class Visible:
    """The positions of one prompt that take part in the forward pass."""

    token_ids: list[int]
    positions: list[int]


@dataclass(frozen=True)
class Rows:
    """B rows [left padding][prompt][completion][right padding]; all completions start in the same column.

    Attributes:
        input_ids, position_ids: (B, L) long.
        attention_mask: (B, L) bool, True where a token is real; made from lengths, never from a pad id.
        prompt_width: column at which completions start.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    prompt_width: int


def visible(policy: Policy, prompt: Prompt, blind: Blind | None) -> Visible:
    """What the language model may see of a prompt.

    Under `mask` text positions may not attend to image positions. Image positions then reach nothing that is
    scored, so they are left out of the row while everything else keeps its position id: the same numbers as a
    mask over the full row, for less work. `drop` lets the positions close up.
    """
    positions = list(range(len(prompt.token_ids)))
    if blind not in ("mask", "drop"):
        return Visible(prompt.token_ids, positions)
    banned = set(policy.banned_token_ids)
    kept = [position for position in positions if prompt.token_ids[position] not in banned]
    token_ids = [prompt.token_ids[position] for position in kept]
    return Visible(token_ids, kept if blind == "mask" else positions[: len(kept)])


def lay_out(policy: Policy, prompts: Sequence[Visible], completions: Sequence[Sequence[int]]) -> Rows:
    """One row a (prompt, completion); an empty completion leaves the prompt alone."""
    if not prompts or len(prompts) != len(completions):
        raise ShapeError(f"{len(prompts)} prompts came with {len(completions)} completions", expected="as many, >= 1")
    width = max(len(prompt.token_ids) for prompt in prompts)
    length = width + max(len(completion) for completion in completions)
    ids = torch.full((len(prompts), length), policy.pad_token_id)
    positions = torch.zeros_like(ids)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        start, stop = width - len(prompt.token_ids), width + len(completion)
        follow = prompt.positions[-1] + 1
        ids[row, start:stop] = torch.tensor([*prompt.token_ids, *completion])
        positions[row, start:stop] = torch.tensor([*prompt.positions, *range(follow, follow + len(completion))])
        mask[row, start:stop] = True
    return Rows(ids.to(policy.device), positions.to(policy.device), mask.to(policy.device), width)


def encode_images(policy: Policy, prompts: Sequence[Prompt], blind: Blind | None) -> list[list[Tensor]] | None:
    """Image features (F, D) of each prompt's images, every image encoded once; None where none are seen."""
    if blind in ("mask", "drop"):
        return None
    counts = [len(prompt.pixel_values) for prompt in prompts]
    if not sum(counts):
        return None
    shown = [prompt.pixel_values for prompt, count in zip(prompts, counts, strict=True) if count]
    if blind is None:
        pixels = torch.cat(shown).to(policy.device, policy.dtype)
        return split_features(policy.family.encode(policy.model, pixels), counts)
    # All blinded images are equal: one is encoded for all.
    pixels = policy.family.blind_pixels(shown[0][:1], blind).to(policy.device, policy.dtype)
    features = policy.family.encode(policy.model, pixels)
    return [features * count for count in counts]


def split_features(features: list[Tensor], counts: Sequence[int]) -> list[list[Tensor]]:
    """Deal a flat list of per-image features to prompts with `counts` images each."""
    iterator = iter(features)
    return [[next(iterator) for _ in range(count)] for count in counts]
