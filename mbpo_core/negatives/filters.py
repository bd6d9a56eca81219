"""Which answers can serve as rejected responses: pure predicates on text, each a reason or None."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.registry import VERIFIERS, rules_of, verify

Reason = Literal["same_answer", "refusal", "repetition", "length"]

_ARTICLES = frozenset({"a", "an", "the"})
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_VISION = r"(?:see|view|tell|determine|identify|recogni[sz]e|make out|answer|describe|access|assist|help|provide)"
_PICTURE = r"(?:image|picture|photo|photograph)"

REFUSALS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b(?:i'm|i am|we are) (?:very )?sorry\b|^\s*sorry\b",
        r"\bas an? (?:ai|artificial|language model)\b",
        rf"\bi (?:can ?not|can't|could not|couldn't|am unable to|am not able to|do not|don't) {_VISION}\b",
        rf"\b(?:unable|impossible|not possible|not able) to {_VISION}\b",
        rf"\b(?:can ?not|can't) be (?:seen|told|determined|identified|answered)\b[^.]{{0,40}}\b{_PICTURE}\b",
        rf"\b(?:no|without an?) {_PICTURE} (?:is |was |has been )?(?:provided|attached|given|shown|available)\b",
        rf"\b{_PICTURE} (?:is|looks|appears|seems)(?: to be)? (?:\w+ )?"
        r"(?:blurry|blurred|unclear|noisy|distorted|corrupted|pixelated|blank|too dark|(?:of )?(?:low|poor) quality)\b",
        r"\b(?:not enough|insufficient) (?:visual )?information\b",
        r"\bunanswerable\b",
    )
)
"""Refusals, "I cannot see", and remarks on the quality of the image: not answers driven by the language prior."""


def normalize(text: str) -> str:
    """The text's words in lower case, without punctuation and articles, one space apart."""
    words = _WORDS.findall(text.replace("\u2019", "'").casefold())
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def agrees(text: str, answer: str, *, kind: str, choices: Sequence[str] = (), meta: str = "{}") -> bool:
    """Whether a text gives the reference answer.

    Closed-ended kinds are read by their verifier; open ones, and reference answers that the verifier cannot
    read, are compared after `normalize`. `meta` is the sample's where `answer` is its reference answer, for what it
    declares of that (docs/data.md).
    """
    if kind in VERIFIERS:
        try:
            return verify(kind, text, answer, choices, rules_of(meta)).verdict == "correct"
        except VerifierError:
            pass  # the reference answer is not of its kind's form: fall back to its words
    return normalize(text) == normalize(answer)


def same_answer(text: str, chosen: str, *, kind: str, choices: Sequence[str] = (), meta: str = "{}") -> Reason | None:
    """A rejected response must say something else than the chosen one."""
    return "same_answer" if agrees(text, chosen, kind=kind, choices=choices, meta=meta) else None


def refusal(text: str) -> Reason | None:
    """A refusal teaches nothing about the language prior."""
    plain = text.replace("\u2019", "'")
    return "refusal" if any(pattern.search(plain) for pattern in REFUSALS) else None


def repetition(text: str, *, min_distinct: float) -> Reason | None:
    """Degenerate loops: the share of distinct word 3-grams must be at least min_distinct; fewer than 3 words pass."""
    words = text.casefold().split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return "repetition" if trigrams and len(set(trigrams)) / len(trigrams) < min_distinct else None


def length(rejected_tokens: int, chosen_tokens: int, *, lowest: float, highest: float) -> Reason | None:
    """Length must not give the pair away: lowest <= T_rejected / T_chosen <= highest (token counts with EOS)."""
    ratio = rejected_tokens / max(chosen_tokens, 1)
    return None if lowest <= ratio <= highest else "length"
