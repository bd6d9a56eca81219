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
from mbpo_core.negatives.items import Made
from mbpo_core.negatives.tasks import STAGE, Task
from mbpo_core.seeds import derive_seed


@dataclass(frozen=True)
class Candidate:
    """A task with what was made of it, the prompt with the rejected images, and the greedy answer to it."""

    task: Task
    prompt: Prompt
    answer: Generated
    made: Made


@dataclass(frozen=True)
class Rejected:
    """The rejected response, None where only the image is dispreferred, and, as JSON, how it came about."""

    text: str | None
    decode: str


@dataclass(frozen=True)
class Refused:
    """No answer passed the filters; the reason is the greedy answer's."""

    reason: filters.Reason
    detail: str


def choose(
    policy: Policy, candidates: Sequence[Candidate], settings: NegativesConfig, seed: int
) -> list[Rejected | Refused]:
    """The rejected response of each candidate, or why it has none.

    A response that came with the sample is taken as it is; one that the generator made must pass the filters. Else it
    is the greedy answer to the rejected images where that passes, else the first extra sample that does.

    Source: recipe 1.4, filters 1-3.
    """
    settled = [_settled(policy, candidate, settings) for candidate in candidates]
    asked = [c for c, outcome in zip(candidates, settled, strict=True) if outcome is None]
    decoded = iter(_decoded(policy, asked, settings, seed))
    return [next(decoded) if outcome is None else outcome for outcome in settled]


def _settled(policy: Policy, candidate: Candidate, settings: NegativesConfig) -> Rejected | Refused | None:
    """The outcome where nothing need be decoded."""
    task, made = candidate.task, candidate.made.rejected
    if task.rejected is not None:
        return Rejected(task.rejected, json.dumps({"mode": "given"}))
    if settings.responses == "none":
        return Rejected(None, json.dumps({"mode": "none"}))
    if made is None:
        return None
    if reason := reason_against(task, made, len(policy.encode_completion(made)), settings):
        return Refused(reason, f"made response {made[:120]!r}")
    return Rejected(made, json.dumps({"mode": "made"}))


def _decoded(
    policy: Policy, candidates: Sequence[Candidate], settings: NegativesConfig, seed: int
) -> list[Rejected | Refused]:
    answers = [(c.task, c.answer.text, len(c.answer.token_ids)) for c in candidates]
    reasons = [reason_against(*answer, settings) for answer in answers]
    failed = [c for c, reason in zip(candidates, reasons, strict=True) if reason]
    seeds = [derive_seed(seed, STAGE, "extra_samples", c.task.sample.sample_id) for c in failed]
    extras = iter(zip(_extra_samples(policy, failed, settings, seeds), seeds, strict=True))
    return [
        Rejected(candidate.answer.text, json.dumps({"mode": "greedy"}))
        if reason is None
        else _first_that_passes(candidate, reason, *next(extras), settings)
        for candidate, reason in zip(candidates, reasons, strict=True)
    ]


def reason_against(task: Task, text: str, tokens: int, settings: NegativesConfig) -> filters.Reason | None:
    """The first filter that refuses an answer of so many tokens (EOS included), or None."""
    sample = task.sample
    return (
        filters.same_answer(text, sample.answer, kind=sample.kind, choices=sample.choices, meta=sample.meta)
        or filters.refusal(text)
        or filters.repetition(text, min_distinct=settings.min_distinct)
        or filters.length(
            tokens,
            len(task.chosen),
            lowest=settings.min_length_ratio,
            highest=settings.max_length_ratio,
        )
    )


def _first_that_passes(
    candidate: Candidate, reason: filters.Reason, tried: list[Generated], seed: int, settings: NegativesConfig
) -> Rejected | Refused:
    for index, answer in enumerate(tried):
        if reason_against(candidate.task, answer.text, len(answer.token_ids), settings) is None:
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
