"""Answering prompts: greedily or by sampling, many completions a prompt, in a decode loop of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.generation.decoding import Decoding, prefill
from mbpo_core.generation.sampling import draw_uniforms, sample
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import check_packing, refuse_banned
from mbpo_core.records import Blind


@dataclass(frozen=True)
class Generated:
    """One completion.

    Attributes:
        token_ids: sampled ids, EOS included when finish_reason is "stop".
        logprobs: of each id under softmax(logits / temperature) over ids that may be drawn, nats; a nucleus
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
    min_new_tokens: int = 0,
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
        min_new_tokens: no completion ends before it has this many tokens besides EOS; ids that end one are left
            out of the softmax until then.
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
        if completions > 1:
            end = policy.eos_token_ids[0]
            check_packing(policy, [PromptGroup(prompt, [[end], [end, end]]) for prompt in prompts[:2]])
        decoding, _ = prefill(policy, prompts, completions, blind)
        results = _decode(decoding, temperature, top_p, max_new_tokens, min_new_tokens, uniforms)
    return [results[start : start + completions] for start in range(0, len(results), completions)]


def answer_and_score(
    policy: Policy,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    blind: Blind | None = None,
) -> list[tuple[Generated, Tensor]]:
    """The greedy answer to each prompt, and what the policy thinks of another one, from the same prefill.

    Args:
        policy: answers and scores.
        prompts: P prompts.
        completions: P lists of token ids, each scored behind its prompt as `group_logprobs` does.
        max_new_tokens: longest answer, tokens, >= 1.
        blind: how the model is kept from seeing the image.

    Returns:
        P answers, each with the (T,) float32 log-probs of the prompt's completion, nats, on the policy's device.

    Raises:
        DataError: a completion is empty or holds a banned token id.
    """
    _check(prompts, 1, 0.0, 1.0, max_new_tokens, None)
    refuse_banned(policy, completions)
    if not prompts:
        return []
    with torch.no_grad():
        decoding, logprobs = prefill(policy, prompts, 1, blind, completions)
        return list(zip(_decode(decoding, 0.0, 1.0, max_new_tokens, 0, None), logprobs, strict=True))


def _decode(
    decoding: Decoding, temperature: float, top_p: float, steps: int, least: int, uniforms: Tensor | None
) -> list[Generated]:
    """Decode until every completion has stopped."""
    policy, count = decoding.policy, len(decoding.alive)
    tokens = torch.zeros((count, steps), dtype=torch.long)
    logprobs = torch.zeros((count, steps))
    lengths = torch.zeros(count, dtype=torch.long)
    eos = torch.tensor(policy.eos_token_ids)
    for step in range(steps):
        logits = policy.head.logits(decoding.states, temperature or 1.0)
        if step < least:
            logits.index_fill_(-1, eos.to(logits.device), -torch.inf)
        distribution = logits.log_softmax(-1)
        if uniforms is None:
            chosen = distribution.argmax(-1)
        else:
            chosen = sample(distribution, uniforms[decoding.alive, step], top_p)
        logprobs[decoding.alive, step] = distribution.gather(-1, chosen[:, None])[:, 0].cpu()
        chosen = chosen.cpu()
        tokens[decoding.alive, step] = chosen
        lengths[decoding.alive] = step + 1
        going = ~torch.isin(chosen, eos)
        if step == steps - 1 or not going.any():
            break
        if not going.all():
            decoding.keep(going)
        decoding.advance(chosen[going])
    columns = zip(tokens.tolist(), logprobs.tolist(), lengths.tolist(), strict=True)
    return [_finish(policy, row[:length], scores[:length]) for row, scores, length in columns]


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
