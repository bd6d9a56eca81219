"""Our own decode loop: one prefill a prompt, its cache shared by the prompt's completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.generation.sampling import draw_uniforms, sample
from mbpo_core.models.groups import Prompt
from mbpo_core.models.layout import encode_images, lay_out, visible
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import allowed_logprobs
from mbpo_core.records import Blind


@dataclass(frozen=True)
class Generated:
    """One completion.

    Attributes:
        token_ids: sampled ids, EOS included when finish_reason is "stop".
        logprobs: of each id under softmax(logits / temperature) over ids that are not banned, nats; a nucleus
            is not mirrored here. Greedy decoding records temperature 1.
        finish_reason: "stop" at EOS, "length" at max_new_tokens.
        text: decoded without special tokens and outer white space.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    text: str


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    completions: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int,
    seeds: Sequence[int] | None = None,
    blind: Blind | None = None,
) -> list[list[Generated]]:
    """Answer each prompt, greedily or by sampling.

    Args:
        policy: answers.
        prompts: P prompts, decoded together; split long lists into batches before.
        completions: G completions a prompt; they share the prompt's prefill.
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_p: nucleus; 1 samples from the whole distribution (use 1 for training).
        max_new_tokens: longest completion, tokens, >= 1.
        seeds: P seeds, needed when sampling; a prompt's result depends on its own seed only (and, through
            float noise in the logits, very rarely on what else is in the batch).
        blind: how the model is kept from seeing the image.

    Returns:
        [P][G] completions.

    Raises:
        ShapeError: if seeds are missing or an argument is out of bounds.
    """
    _check(prompts, completions, temperature, top_p, max_new_tokens, seeds)
    if not prompts:
        return []
    uniforms = draw_uniforms(seeds, completions, max_new_tokens) if temperature > 0 and seeds is not None else None
    with torch.no_grad():
        loop = _Decoding(policy, prompts, completions, blind)
        tokens, logprobs = loop.run(temperature, top_p, max_new_tokens, uniforms)
    results = [_finish(policy, t, lp) for t, lp in zip(tokens, logprobs, strict=True)]
    return [results[start : start + completions] for start in range(0, len(results), completions)]


class _Decoding:
    """State of the rows that are still being decoded; finished rows leave the batch."""

    def __init__(self, policy: Policy, prompts: Sequence[Prompt], completions: int, blind: Blind | None) -> None:
        self.policy = policy
        rows = lay_out(policy, [visible(policy, prompt, blind) for prompt in prompts], [[]] * len(prompts))
        features = encode_images(policy, prompts, blind)
        flat = None if features is None else [feature for row in features for feature in row]
        output = self._forward(rows.input_ids, rows.attention_mask, rows.position_ids, None, flat)
        self.cache: Any = output.past_key_values
        if completions > 1:
            self.cache.batch_repeat_interleave(completions)
        self.mask = rows.attention_mask.repeat_interleave(completions, 0)
        self.position = rows.position_ids[:, -1].repeat_interleave(completions, 0) + 1
        self.logits: Tensor = output.logits[:, -1].repeat_interleave(completions, 0)
        self.alive = torch.arange(len(self.logits))  # original index of each row still in the batch

    def run(
        self, temperature: float, top_p: float, steps: int, uniforms: Tensor | None
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Decode until every row has stopped; returns token ids and log-probs by original row."""
        count = len(self.alive)
        tokens: list[list[int]] = [[] for _ in range(count)]
        logprobs: list[list[float]] = [[] for _ in range(count)]
        eos = torch.tensor(self.policy.eos_token_ids)
        for step in range(steps):
            distribution = allowed_logprobs(self.policy, self.logits, temperature or 1.0)
            if uniforms is None:
                chosen = distribution.argmax(-1)
            else:
                chosen = sample(distribution, uniforms[self.alive, step], top_p)
            picked = distribution.gather(-1, chosen[:, None])[:, 0].tolist()
            for row, token, logprob in zip(self.alive.tolist(), chosen.tolist(), picked, strict=True):
                tokens[row].append(token)
                logprobs[row].append(logprob)
            going = ~torch.isin(chosen.cpu(), eos)
            if step == steps - 1 or not going.any():
                break
            self._keep(going)
            self._advance(chosen[going.to(chosen.device)])
        return tokens, logprobs

    def _keep(self, going: Tensor) -> None:
        if bool(going.all()):
            return
        kept = going.nonzero()[:, 0]
        self.alive = self.alive[kept]
        kept = kept.to(self.mask.device)
        self.cache.batch_select_indices(kept)
        self.mask, self.position = self.mask[kept], self.position[kept]

    def _advance(self, chosen: Tensor) -> None:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        output = self._forward(chosen[:, None], self.mask, self.position[:, None], self.cache, None)
        self.logits, self.position = output.logits[:, -1], self.position + 1

    def _forward(
        self, input_ids: Tensor, mask: Tensor, position_ids: Tensor, cache: Any, features: list[Tensor] | None
    ) -> Any:
        return self.policy.family.forward(
            self.policy.model,
            features,
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )


def _finish(policy: Policy, token_ids: list[int], logprobs: list[float]) -> Generated:
    stopped = token_ids[-1] in policy.eos_token_ids
    return Generated(token_ids, logprobs, "stop" if stopped else "length", policy.decode(token_ids))


def _check(
    prompts: Sequence[Prompt],
    completions: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    seeds: Sequence[int] | None,
) -> None:
    if completions < 1 or max_new_tokens < 1:
        raise ShapeError(f"completions ({completions}) and max_new_tokens ({max_new_tokens}) must be >= 1")
    if temperature < 0 or not 0 < top_p <= 1:
        raise ShapeError(f"temperature must be >= 0 and top_p in (0, 1], got {temperature} and {top_p}")
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        raise ShapeError(
            f"sampling {len(prompts)} prompts needs as many seeds, got {None if seeds is None else len(seeds)}",
            remedy="Derive one a prompt with mbpo_core.seeds.derive_seed.",
        )
