"""Verdicts on answers: by the verifier of the question's kind, or word for word where there is none."""

from __future__ import annotations

from mbpo_core.errors import VerifierError
from mbpo_core.evaluation.vocabulary import split_words
from mbpo_core.records import CLOSED_KINDS
from mbpo_core.stage import Row


def judge(sample: Row, text: str, answer: str | None = None) -> tuple[str, str | None]:
    """(verdict, extracted answer) of a text: by the kind's verifier, or word for word where there is none.

    Args:
        sample: a Sample row.
        text: what the policy said.
        answer: what to compare with instead of the reference answer.
    """
    from mbpo_core.verifiers.registry import rules_of, verify

    gold = sample["answer"] if answer is None else answer
    if sample["kind"] not in CLOSED_KINDS:
        return ("correct" if split_words(text) == split_words(gold) else "wrong"), None
    rules = rules_of(sample["meta"])
    if answer is not None:
        rules = rules.without_aliases()
    judgement = verify(sample["kind"], text, gold, sample["choices"], rules)
    return judgement.verdict, judgement.extracted


def says(sample: Row, text: str, prior: str) -> bool | None:
    """Whether the text gives the prior's answer; None where that answer itself cannot be read."""
    try:
        return judge(sample, text, prior)[0] == "correct"
    except VerifierError:
        return None
