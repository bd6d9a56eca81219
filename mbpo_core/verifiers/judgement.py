"""What a verifier returns."""

from __future__ import annotations

from dataclasses import dataclass

from mbpo_core.records import Verdict

TEXT_LIMIT = 20_000
"""Longest text that is read, characters; a longer one is unparsed."""


@dataclass(frozen=True)
class Judgement:
    """One verdict, with what it rests on.

    Attributes:
        verdict: correct, wrong, or unparsed where no answer could be read out of the text.
        extracted: the answer that was read; None exactly when the verdict is unparsed.
        reason: one sentence for people.
    """

    verdict: Verdict
    extracted: str | None
    reason: str


@dataclass(frozen=True)
class Reading:
    """An answer read out of a text, or None and why not."""

    value: str | None
    reason: str


def compare(found: Reading, gold: str) -> Judgement:
    """The verdict for answers that are compared as they are written."""
    if found.value is None:
        return Judgement("unparsed", None, found.reason)
    if found.value == gold:
        return Judgement("correct", found.value, f"{found.reason}, as the reference answer")
    return Judgement("wrong", found.value, f"{found.reason}, but the reference answer is {gold!r}")
