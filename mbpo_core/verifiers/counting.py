"""Counting: how many things there are, in digits, in words, or by an article ("a dog" is one, "no dogs" none)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import Judgement, Reading, compare
from mbpo_core.verifiers.numerals import Number, numbers, tokens_of
from mbpo_core.verifiers.rules import PLAIN, Rules
from mbpo_core.verifiers.text import sentences

NAME, VERSION = "counting", 1

_NONE = frozenset({"nothing", "nobody"})  # "none" is read as a number already
# What "a" stands before without saying one: amounts, and words of the answer itself.
_NO_ONE_THING = frozenset(
    {"couple", "few", "lot", "lots", "number", "total", "group", "bunch", "dozen", "hundred", "thousand", "million"}
    | {"half", "quarter", "third", "variety", "series", "set", "row", "range", "large", "small", "great", "good", "bit"}
    | {"picture", "photo", "image", "scene", "guess", "question", "count", "little", "pair", "crowd", "handful"}
)
_NOT_NONE = frozenset({"more", "less", "fewer", "other", "idea", "doubt", "way", "clue", "problem", "answer", "image"})
_ONE_CUES = frozenset({"is", "was", "see", "has", "contains", "shows", "only", "just", "exactly"})


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The count a text gives, in digits, or None."""
    return read(text).value


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Equal whole numbers; what is counted is not looked at.

    Raises:
        VerifierError: the reference answer does not give exactly one whole number.
    """
    gold = read(answer)
    if gold.value is None:
        raise VerifierError(
            f"counting cannot read the reference answer {answer!r:.120}: {gold.reason}",
            expected="one whole number, 0 or more",
            remedy="Correct the answer or the question's kind.",
        )
    return compare(read(text), gold.value)


def read(text: str) -> Reading:
    """Announced counts ("the answer is 3") decide, then those after a verb, then all; they must agree.

    "No dogs", "there are no dogs", "there aren't any" and "nothing" say 0, "a dog" and "there is a dog" say 1, "a
    pair" says 2, "a dozen" 12. "A couple", "a few" and "several" say no number.
    """
    found = list(numbers(text))
    parts = [[token.text for token in tokens_of(sentence)] for sentence in sentences(text)]
    found += [number for words in parts for number in _none(words)]
    if not any(number.rank for number in found):
        # Articles are weaker than numbers after a verb, and no weaker than others: "a dog and two cats" is unclear.
        found = [replace(n, rank=0) for n in (*found, *(one for words in parts for one in _by_article(words)))]
    if not found:
        return Reading(None, "no count in the text")
    rank = max(number.rank for number in found)
    values = list(dict.fromkeys(number.value for number in found if number.rank == rank))
    if len(values) > 1 or values[0] is None:
        return Reading(None, f"several or malformed counts: {', '.join(n.shown() for n in found[:5])}")
    if values[0].denominator != 1 or values[0] < 0:
        return Reading(None, f"{found[0].shown()} is no count")
    return Reading(str(values[0].numerator), f"counts {values[0].numerator}")


def _none(words: Sequence[str]) -> Iterator[Number]:
    """Zeros that no number word of a sentence says: "No dogs", "there aren't any", "nothing"."""
    for i, word in enumerate(words):
        before, after = "".join(words[max(0, i - 1) : i]), "".join(words[i + 1 : i + 2])
        denied = word == "any" and (before == "not" or before.endswith("n't"))
        if word in _NONE or denied or (word == "no" and i == 0 and after.isalpha() and after not in _NOT_NONE):
            yield Number(Fraction(0), rank=1)


def _by_article(words: Sequence[str]) -> Iterator[Number]:
    """Ones and twos that no number word of a sentence says; several things side by side are no count."""
    for i, word in enumerate(words):
        before, after = "".join(words[max(0, i - 1) : i]), "".join(words[i + 1 : i + 2])
        if word == "pair" and before == "a":
            yield Number(Fraction(2))
        elif word in {"a", "an"} and after.isalpha() and after not in _NO_ONE_THING and not list(numbers(after)):
            if before in {"and", "or", ","}:
                yield Number(None)
            elif not before or before in _ONE_CUES:
                yield Number(Fraction(1))
