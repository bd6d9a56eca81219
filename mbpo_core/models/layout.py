"""Prompts and completions as rows of one batch: what a row holds, where it stands, and what may see what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.models.attention import Segments
from mbpo_core.models.groups import Prompt
from mbpo_core.models.policy import Policy
from mbpo_core.records import Blind


@dataclass(frozen=True)
class Visible:
    """The positions of one prompt that take part in the forward pass; positions is (A, P) long, follow the next."""

    token_ids: list[int]
    positions: Tensor
    follow: int


@dataclass(frozen=True)
class Pack:
    """One row: a prompt, and the completions of it that the row carries."""

    prompt: Visible
    completions: Sequence[Sequence[int]]
    targets: Sequence[Sequence[int]] | None = None  # what is scored, where it is not what is read

    @property
    def segments(self) -> tuple[int, ...]:
        """Tokens of the prompt, and of each completion."""
        return (len(self.prompt.token_ids), *map(len, self.completions))


@dataclass(frozen=True)
class Rows:
    """B rows [prompt][completion 1]...[completion K][padding].

    Attributes:
        input_ids: (B, L) long.
        position_ids: (A, B, L) long; every completion goes on where the prompt ends.
        attention_mask: (B, L) bool, True everywhere, where no row holds more than one completion: padding stands
            behind every real token, so a causal model never sees it. Else (B, 1, L, L) additive in the model's
            dtype, 0 where a query may see a key: the prompt, and its own completion up to itself; unless there are
            segments.
        segments: in place of that mask, where attending segment by segment costs less.
        predicting: (N,) long into the flattened rows: the places whose hidden states predict the completions'
            tokens, in order. The prompt's last place predicts the first token of each of its completions.
        targets: (N,) long, those tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    segments: Segments | None
    predicting: Tensor
    targets: Tensor


def visible(policy: Policy, prompt: Prompt, blind: Blind | None) -> Visible:
    """What the language model may see of a prompt.

    Under `mask` text positions may not attend to image positions. Image positions then reach nothing that is
    scored, so they are left out of the row while everything else keeps its position id: the same numbers as a
    mask over the full row, for less work. `drop` lets the positions close up.
    """
    if blind not in ("mask", "drop"):
        positions = policy.family.positions(prompt)
        return Visible(prompt.token_ids, positions, int(positions.max()) + 1)
    kept = [place for place, token in enumerate(prompt.token_ids) if token not in policy.image_token_ids]
    token_ids = [prompt.token_ids[place] for place in kept]
    if blind == "drop":
        positions = policy.family.positions(Prompt(token_ids))
        return Visible(token_ids, positions, int(positions.max()) + 1)
    positions = policy.family.positions(prompt)
    return Visible(token_ids, positions[:, kept], int(positions.max()) + 1)


def lay_out(policy: Policy, packs: Sequence[Pack], by_segment: bool | None = None) -> Rows:
    """One row a pack, padded on the right to the longest.

    Args:
        policy: decides how packed rows attend, and where tensors are.
        packs: >= 1.
        by_segment: overrides that decision.

    Raises:
        ShapeError: there is no pack.
    """
    if not packs:
        raise ShapeError("there are no rows to lay out", expected=">= 1")
    shape = tuple(pack.segments for pack in packs)
    length = max(map(sum, shape))
    axes = len(packs[0].prompt.positions)
    ids = torch.full((len(packs), length), policy.pad_token_id)
    positions = torch.zeros((axes, len(packs), length), dtype=torch.long)
    owner = torch.full((len(packs), length), -1)  # 0 for the prompt, k for completion k, -1 for padding
    predicting: list[int] = []
    for row, pack in enumerate(packs):
        start = len(pack.prompt.token_ids)
        ids[row, :start] = torch.tensor(pack.prompt.token_ids)
        positions[:, row, :start] = pack.prompt.positions
        owner[row, :start] = 0
        before = row * length + start - 1
        for number, completion in enumerate(pack.completions, start=1):
            stop = start + len(completion)
            ids[row, start:stop] = torch.tensor(completion)
            positions[:, row, start:stop] = torch.arange(len(completion)) + pack.prompt.follow
            owner[row, start:stop] = number
            predicting += [before, *range(row * length + start, row * length + stop - 1)]
            start = stop
    targets = torch.tensor([token for pack in packs for scored in pack.targets or pack.completions for token in scored])
    mask, segments = torch.ones_like(ids, dtype=torch.bool), None
    if any(len(pack.completions) > 1 for pack in packs):
        if policy.packing.by_segment(shape) if by_segment is None else by_segment:
            segments = Segments(shape)
        else:
            mask = block_mask(owner.to(policy.device), policy.dtype)
    return Rows(
        input_ids=ids.to(policy.device),
        position_ids=positions.to(policy.device),
        attention_mask=mask.to(policy.device),
        segments=segments,
        predicting=torch.tensor(predicting, dtype=torch.long, device=policy.device),
        targets=targets.to(policy.device),
    )


def block_mask(owner: Tensor, dtype: torch.dtype) -> Tensor:
    """The additive attention mask of packed rows.

        query q may see key k  <=>  k <= q and (owner_k = 0 or owner_k = owner_q)

    Args:
        owner: (B, L) long: 0 for the prompt, k for completion k, -1 for padding, which sees and is seen by itself
            alone.
        dtype: of the model.

    Returns:
        (B, 1, L, L): 0 where seen, the smallest number of the dtype elsewhere.
    """
    length = owner.shape[1]
    same = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    causal = torch.ones(length, length, dtype=torch.bool, device=owner.device).tril()
    seen = same & causal
    mask = torch.zeros(seen.shape, dtype=dtype, device=owner.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def align_prompts(
    policy: Policy, prompts: Sequence[Visible], completions: Sequence[Sequence[int]] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [left padding][prompt][completion][right padding] whose prompts all end in the same column.

    Args:
        prompts: P of them, >= 1.
        completions: one a prompt, or None for prompts alone.

    Returns:
        (P, L) ids, (A, P, L) positions, and the (P, L) bool mask of real tokens; made from lengths, never from a
        pad id.
    """
    follows = completions or [[]] * len(prompts)
    width = max(len(prompt.token_ids) for prompt in prompts)
    length = width + max(len(tokens) for tokens in follows)
    ids = torch.full((len(prompts), length), policy.pad_token_id)
    positions = torch.zeros((len(prompts[0].positions), len(prompts), length), dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, tokens) in enumerate(zip(prompts, follows, strict=True)):
        start, stop = width - len(prompt.token_ids), width + len(tokens)
        ids[row, start:stop] = torch.tensor([*prompt.token_ids, *tokens])
        positions[:, row, start:width] = prompt.positions
        positions[:, row, width:stop] = torch.arange(len(tokens)) + prompt.follow
        mask[row, start:stop] = True
    return ids.to(policy.device), positions.to(policy.device), mask.to(policy.device)
