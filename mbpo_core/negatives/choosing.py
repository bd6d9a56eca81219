"""Which answer to a perturbed image becomes the rejected response."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.config import NegativesConfig
from mbpo_core.generation.generate import Generated, generate
from mbpo_core.models.groups import Prompt
from mbpo_core.models.policy import Policy
from mbpo_core.negatives import filters
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.tasks import STAGE, Task
from mbpo_core.seeds import derive_seed


@dataclass(frozen=True)
class Candidate:
    """A task with its perturbed prompt and the greedy answer to it."""

    task: Task
    prompt: Prompt
    answer: Generated


@dataclass(frozen=True)
class Rejected:
    """The rejected response and, as JSON, how it was decoded."""

    text: str
    decode: str


@dataclass(frozen=True)
class Refused:
    """No answer passed the filters; the reason is the greedy answer's."""

    reason: filters.Reason
    detail: str


def choose(
    policy: Policy, candidates: Sequence[Candidate], settings: NegativesConfig, seed: int
) -> list[Rejected | Refused]:
    """The greedy answer where it passes the filters, else the first extra sample that does, else nothing.

    Source: recipe 1.4, filters 1-3.
    """
    reasons = [reason_against(c.task, c.answer, settings) for c in candidates]
    failed = [c for c, reason in zip(candidates, reasons, strict=True) if reason]
    seeds = [derive_seed(seed, STAGE, "extra_samples", c.task.sample.sample_id) for c in failed]
    extras = iter(zip(_extra_samples(policy, failed, settings, seeds), seeds, strict=True))
    return [
        Rejected(candidate.answer.text, json.dumps({"mode": "greedy"}))
        if reason is None
        else _first_that_passes(candidate, reason, *next(extras), settings)
        for candidate, reason in zip(candidates, reasons, strict=True)
    ]


def reason_against(task: Task, answer: Generated, settings: NegativesConfig) -> filters.Reason | None:
    """The first filter that refuses an answer, or None."""
    sample = task.sample
    return (
        filters.same_answer(answer.text, sample.answer, kind=sample.kind, choices=sample.choices)
        or filters.refusal(answer.text)
        or filters.repetition(answer.text, min_distinct=settings.min_distinct)
        or filters.length(
            len(answer.token_ids),
            len(task.chosen),
            lowest=settings.min_length_ratio,
            highest=settings.max_length_ratio,
        )
    )


def _first_that_passes(
    candidate: Candidate, reason: filters.Reason, tried: list[Generated], seed: int, settings: NegativesConfig
) -> Rejected | Refused:
    for index, answer in enumerate(tried):
        if reason_against(candidate.task, answer, settings) is None:
            how = {"mode": "sample", "index": index, "temperature": settings.temperature, "top_p": settings.top_p}
            return Rejected(answer.text, json.dumps({**how, "seed": seed}))
    detail = f"greedy answer {candidate.answer.text[:120]!r}; {len(tried)} extra samples failed too"
    return Refused(reason, detail)


def _extra_samples(
    policy: Policy, failed: list[Candidate], settings: NegativesConfig, seeds: list[int]
) -> list[list[Generated]]:
    if settings.extra_samples == 0:
        return [[] for _ in failed]

    def draw(few: list[tuple[Candidate, int]]) -> list[list[Generated]]:
        return generate(
            policy,
            [candidate.prompt for candidate, _ in few],
            completions=settings.extra_samples,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            seeds=[seed for _, seed in few],
        )

    seeded = list(zip(failed, seeds, strict=True))
    return by_length(seeded, lambda pair: len(pair[0].prompt.token_ids), settings.batch_size, draw)
