"""One prefill a prompt, then a token a step for all its completions, which share the prompt's keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mbpo_core.generation.cache import new_cache
from mbpo_core.models.encoding import encode_images
from mbpo_core.models.groups import Prompt
from mbpo_core.models.layout import align_prompts, visible
from mbpo_core.models.policy import Policy
from mbpo_core.models.projection import target_logprobs
from mbpo_core.records import Blind

_PROMPT, _NOBODY, _FILLER = -1, -2, -3  # owners of a key that no completion owns


@dataclass
class Decoding:
    """The completions of some prompts while they are being decoded.

    A row of the batch is a prompt; its unfinished completions are the row's queries, one token each a step. Keys
    and values of the prompt are kept once for all of them, and a mask keeps completions from seeing one another.
    Models that cannot be packed get a row of their own for every completion, with a copy of the prompt's keys.
    Finished completions leave; a row leaves with its last one.

    Attributes:
        states: (n, D) hidden states that predict the next token of each unfinished completion.
        alive: (n,) long, on the CPU: which of the P * G completions they are.
    """

    policy: Policy
    states: Tensor
    alive: Tensor
    _cache: Any
    _slots: int  # completions a row
    _row: Tensor  # (n,) row of each unfinished completion
    _follow: Tensor  # (R,) position id of each row's first new token
    _owner: Tensor  # (R, keys) slot that a key belongs to, or one of the names above
    _positions: Tensor  # (A, R, keys) position ids of the keys
    _step: int = 0

    def keep(self, going: Tensor) -> None:
        """Let the others of the unfinished completions go; going is (n,) bool on the CPU."""
        self.alive, self._row = self.alive[going], self._row[going]
        kept = torch.unique(self._row)
        if len(kept) < len(self._follow):
            self._cache.batch_select_indices(kept.to(self.policy.device))
            self._follow, self._owner = self._follow[kept], self._owner[kept]
            self._positions = self._positions[:, kept]
            self._row = torch.searchsorted(kept, self._row)

    def advance(self, tokens: Tensor) -> None:
        """Read the (n,) tokens just chosen, and predict the next ones."""
        counts = torch.bincount(self._row, minlength=len(self._follow))
        place = torch.arange(len(self._row)) - (counts.cumsum(0) - counts)[self._row]
        shape = (len(counts), int(counts.max()))
        ids = torch.full(shape, self.policy.pad_token_id)
        ids[self._row, place] = tokens.cpu()
        owner = torch.full(shape, _FILLER)
        owner[self._row, place] = self.alive % self._slots
        self._owner = torch.cat([self._owner, owner], dim=1)
        positions = (self._follow + self._step)[:, None].expand(len(self._positions), *shape)
        self._positions = torch.cat([self._positions, positions], dim=2)
        device = self.policy.device
        states = self.policy.family.hidden(
            self.policy.model,
            None,
            input_ids=ids.to(device),
            attention_mask=self._mask(owner),
            position_ids=positions.to(device),
            key_positions=self._positions.to(device),
            cache=self._cache,
        )
        self._step += 1
        self.states = states[self._row.to(device), place.to(device)]

    def _mask(self, owner: Tensor) -> Tensor:
        """What the new tokens see: the prompt, and what their completion has said so far."""
        if self._slots == 1:
            return (self._owner != _NOBODY).to(self.policy.device)
        keys = self._owner[:, None, :].to(self.policy.device)
        unseen = (keys != _PROMPT) & (keys != owner[:, :, None].to(self.policy.device))
        mask = torch.zeros(unseen.shape, dtype=self.policy.dtype, device=self.policy.device)
        return mask.masked_fill_(unseen, torch.finfo(self.policy.dtype).min)[:, None]


def prefill(
    policy: Policy,
    prompts: Sequence[Prompt],
    completions: int,
    blind: Blind | None,
    scored: Sequence[Sequence[int]] | None = None,
) -> tuple[Decoding, list[Tensor]]:
    """Read every prompt once.

    Args:
        prompts: P prompts.
        completions: G completions to decode of each.
        blind: how the model is kept from seeing the images.
        scored: one completion a prompt whose log-probs are wanted; it is read behind the prompt and forgotten.

    Returns:
        The decoding before its first token, and P tensors (T,) float32, nats (none if nothing is scored).
    """
    seen = [visible(policy, prompt, blind) for prompt in prompts]
    features = encode_images(policy, prompts, blind)
    ids, positions, mask = align_prompts(policy, seen, scored)
    cache = new_cache(policy)
    states = policy.family.hidden(
        policy.model,
        None if features is None else [feature for row in features for feature in row],
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        cache=cache,
    )
    width = max(len(prompt.token_ids) for prompt in seen)
    logprobs = [] if scored is None else _score(policy, states[:, width - 1 :], scored)
    if scored is not None:
        cache.crop(width - ids.shape[1])
    packed = completions > 1 and policy.packing.mode != "plain"
    copies = 1 if packed else completions
    if copies > 1:
        cache.batch_repeat_interleave(copies)
    owner = torch.where(mask[:, :width].cpu(), _PROMPT, _NOBODY)
    alive = torch.arange(len(prompts) * completions)
    decoding = Decoding(
        policy=policy,
        states=states[:, width - 1].repeat_interleave(completions, 0),
        alive=alive,
        _cache=cache,
        _slots=completions // copies,
        _row=alive // (completions // copies),
        _follow=torch.tensor([prompt.follow for prompt in seen]).repeat_interleave(copies),
        _owner=owner.repeat_interleave(copies, 0),
        _positions=positions[:, :, :width].cpu().repeat_interleave(copies, 1),
    )
    return decoding, logprobs


def _score(policy: Policy, states: Tensor, completions: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probs of one completion a row; states (P, >= T, D) begin with the one that predicts its first token."""
    lengths = [len(tokens) for tokens in completions]
    picked = torch.cat([row[:length] for row, length in zip(states, lengths, strict=True)])
    targets = torch.tensor([token for tokens in completions for token in tokens], device=picked.device)
    logprobs, _ = target_logprobs(picked, targets, policy.head, 1.0)
    return list(torch.split(logprobs, lengths))
