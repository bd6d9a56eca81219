"""How often the attack succeeded, what the answers turned into, and what it took, over all samples attacked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mbpo_core.negatives.filters import agrees, refusal, repetition
from mbpo_core.verifiers.registry import VERIFIERS, extract

Outcome = Literal["refusal", "nonsense", "prior", "other"]

COLUMNS = (
    "question_kind", "chosen", "clean_correct", "flipped", "flipped_unrounded", "attacked_answer", "blind_answer",
    "attack", "meta",
)  # fmt: skip
_FLAGS = ("clean_correct", "flipped", "flipped_unrounded")
_TO: dict[Outcome, str] = {name: f"to_{name}" for name in ("prior", "other", "nonsense", "refusal")}
_COUNTED = (
    "attacked", "kept", *_FLAGS, "flips_kept_by_rounding", *_TO.values(), "prior_told", "to_blind", "steps",
    "ended_early",
)  # fmt: skip
_REASONS: dict[str, Outcome] = {"refusal": "refusal", "repetition": "nonsense"}


def flip_outcome(
    text: str, prior: str | None, *, kind: str, choices: Sequence[str] = (), min_distinct: float
) -> Outcome:
    """What an answer turned into that was right before; the first of these that holds.

    refusal: it does not answer, or blames the image. nonsense: no word of it can be read, it repeats itself, or no
    answer of its kind can be read out of it. prior: it says what the prior says. other: another wrong answer.

    Args:
        text: the answer to the saved image.
        prior: what the prior says; None where nobody knows.
        kind: of the question.
        choices: of a multiple-choice question; without them any words may name an option.
        min_distinct: least share of distinct 3-grams, as in `filters.repetition`.
    """
    if refusal(text):
        return "refusal"
    readable = (kind == "multiple_choice" and not choices) or kind not in VERIFIERS or extract(kind, text, choices)
    if not text.strip() or not readable or repetition(text, min_distinct=min_distinct):
        return "nonsense"
    return "prior" if prior is not None and agrees(text, prior, kind=kind, choices=choices) else "other"


def summarize(
    negatives: Iterable[Mapping[str, Any]], dropped: Iterable[Mapping[str, Any]], min_distinct: float
) -> dict[str, Any]:
    """Counts of attacked samples, and among them of answers that were right and flipped.

    A sample whose answer withstood the attack is usually dropped as `same_answer`, one that flipped to a refusal as
    `refusal`; rates over the kept rows alone would flatter the attack. Dead letters carry the same columns in their
    row's JSON; where one of an older artifact lacks the answer, its reason says what it was.

    Args:
        negatives: rows of the main table with `COLUMNS`.
        dropped: dead letters with reason and row; those that were never attacked (unreadable, too long) do not count.
        min_distinct: as in `flip_outcome`.

    Returns:
        {"all": counts, "by_kind": {question kind: counts}}. Samples: attacked, kept, clean_correct. Of those right on
        the clean image: flipped (on the saved 8-bit image), flipped_unrounded (before rounding),
        flips_kept_by_rounding (both). Of the flipped: to_prior + to_other + to_nonsense + to_refusal = flipped;
        prior_told (the prior is known and wrong, so that a flip to it is possible); to_blind (says what the model says
        without the image). Of all: steps (gradient steps), ended_early (by loss bound or flip), mean_steps.
    """
    by_kind: dict[str, dict[str, int]] = {}
    for row in negatives:
        told = {**row, "attack": json.loads(row["attack"]), "kind": row["question_kind"]}
        _count(by_kind, told, None, min_distinct)
    for letter in dropped:
        row = json.loads(letter["row"])
        if "clean_correct" in row:
            _count(by_kind, {**row, "chosen": row.get("answer")}, str(letter["reason"]), min_distinct)
    total = {name: sum(counts[name] for counts in by_kind.values()) for name in _COUNTED}
    return {"all": _with_mean(total), "by_kind": {kind: _with_mean(by_kind[kind]) for kind in sorted(by_kind)}}


def _count(by_kind: dict[str, dict[str, int]], row: Mapping[str, Any], reason: str | None, min_distinct: float) -> None:
    """Add one sample; `reason` is None for a kept one."""
    counts = by_kind.setdefault(row["kind"], dict.fromkeys(_COUNTED, 0))
    counts["attacked"] += 1
    counts["kept"] += reason is None
    for name in _FLAGS:
        counts[name] += bool(row[name])
    counts["flips_kept_by_rounding"] += bool(row["flipped"] and row["flipped_unrounded"])
    counts["steps"] += row["attack"].get("steps_taken", 0)
    counts["ended_early"] += row["attack"].get("stopped", "steps") != "steps"
    if row["flipped"]:
        _count_flip(counts, row, reason, min_distinct)


def _count_flip(counts: dict[str, int], row: Mapping[str, Any], reason: str | None, min_distinct: float) -> None:
    """Where the answer went."""
    kind, choices = row["kind"], row.get("choices") or ()
    prior = json.loads(row.get("meta") or "{}").get("prior_answer")
    counts["prior_told"] += isinstance(prior, str) and not agrees(prior, row["chosen"], kind=kind, choices=choices)
    text, blind = row.get("attacked_answer"), row.get("blind_answer")
    if text is None:
        counts[_TO[_REASONS.get(reason or "", "other")]] += 1
        return
    prior = prior if isinstance(prior, str) else None
    counts[_TO[flip_outcome(text, prior, kind=kind, choices=choices, min_distinct=min_distinct)]] += 1
    counts["to_blind"] += blind is not None and agrees(text, blind, kind=kind, choices=choices)


def _with_mean(counts: dict[str, int]) -> dict[str, float]:
    return {**counts, "mean_steps": round(counts["steps"] / max(counts["attacked"], 1), 3)}
