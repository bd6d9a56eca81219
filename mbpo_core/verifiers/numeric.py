"""Numbers and counts: digits or words, thousands separators, percent and units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import Judgement
from mbpo_core.verifiers.text import clean

NAME, VERSION = "numeric", 1

# A maximal run of what numbers are written with; _value then accepts only well-formed ones, so that
# "1,23", "3,4" and "12/05/2020" are unreadable rather than half read.
_TOKENS = re.compile(
    r"(?P<run>(?<![\w.])[-+]?\$?[0-9][0-9.,/²³¹½¼¾⅓⅔]*(?:e[-+]?[0-9]+)?)|(?P<word>[a-z]+(?:'[a-z]+)?)|(?P<mark>[^\s\w])"
)
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_PLAIN = re.compile(r"[-+]?(?:[0-9]+|[0-9]+\.[0-9]+)(?:e[-+]?[0-9]{1,2})?|[-+]?[0-9]+/[0-9]*[1-9][0-9]*")
_DIGIT = re.compile(r"[0-9]")
_LONGEST = 40  # characters of one number

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_ORDINAL = frozenset({"st", "nd", "rd", "th"})
_UNITS = {
    "%": "%", "percent": "%", "mm": "mm", "cm": "cm", "m": "m", "km": "km", "g": "g", "kg": "kg", "ml": "ml", "l": "l",
    "inch": "in", "inches": "in", "ft": "ft", "feet": "ft", "foot": "ft", "miles": "mi", "mile": "mi", "mph": "mph",
    "meter": "m", "meters": "m", "metre": "m", "metres": "m", "centimeters": "cm", "centimetres": "cm",
    "kilometers": "km", "kilometres": "km", "grams": "g", "kilograms": "kg", "s": "s", "seconds": "s", "minutes": "min",
    "min": "min", "hours": "h", "h": "h",
}  # fmt: skip
_SKIPPED = frozenset({"a", "the", "exactly", "only", "just", "about", "around", "approximately", "roughly"})
_CUES = frozenset({"is", "are", "was", "were", "count", "counted", "see", "equals", "equal", "=", "total"})
_ZERO_CUES = frozenset({"is", "are", "was", "were", "see", "has", "have", "contains", "shows"})  # "there are no cats"
_NOT_ZERO = frozenset({"more", "less", "fewer", "other", "idea", "doubt", "way"})  # "no more than"
_BOUNDS = frozenset({"than", "least", "most", "over", "under", "nearly", "almost", "between"})  # "more than 3"
_PRONOUN = frozenset({"the", "this", "that", "no", "any", "each", "another", "which", "every"})  # "this one"


@dataclass(frozen=True)
class Number:
    """A number found in a text; value None if it is malformed. rank: 2 announced as the answer, 1 after a verb."""

    value: Fraction | None
    unit: str
    rank: int


def extract(text: str, choices: Sequence[str] = ()) -> str | None:
    """The one number a text gives, in digits with its unit ("3", "0.5", "25%"), or None."""
    found = _single(text)
    return None if isinstance(found, str) else _shown(found)


def judge(text: str, answer: str, choices: Sequence[str] = (), answer_form: str = "free") -> Judgement:
    """Equal as rational numbers; units must agree where both are known and named.

    Percent is a unit: 50% does not equal 0.5, and 50 equals 50%.

    Raises:
        VerifierError: the reference answer does not give exactly one number.
    """
    gold = _single(answer)
    if isinstance(gold, str):
        raise VerifierError(
            f"numeric cannot read the reference answer {answer!r:.120}: {gold}",
            expected="one number",
            remedy="Correct the answer or the question's kind.",
        )
    found = _single(text)
    if isinstance(found, str):
        return Judgement("unparsed", None, found)
    if found.value != gold.value:
        return Judgement("wrong", _shown(found), f"gives {_shown(found)}, but the reference answer is {_shown(gold)}")
    if found.unit and gold.unit and found.unit != gold.unit:
        return Judgement("wrong", _shown(found), f"gives {found.unit}, but the reference answer is in {gold.unit}")
    return Judgement("correct", _shown(found), f"gives {_shown(found)}, as the reference answer")


def _single(text: str) -> Number | str:
    """The number a text gives, or why there is none: announced ones decide, then those after a verb, then all."""
    found = list(_numbers(text))
    if not found:
        return "no number in the text"
    rank = max(number.rank for number in found)
    named = [number for number in found if number.rank == rank]
    if len({number.value for number in named}) > 1 or named[0].value is None:
        return f"several or malformed numbers: {', '.join(map(_shown, named[:5]))}"
    return next((number for number in named if number.unit), named[0])


def _numbers(text: str) -> Iterator[Number]:
    """Numbers in order; ordinals, "this one" and denied numbers ("not 4") are left out."""
    words = [m[0] for m in _TOKENS.finditer(clean(text).casefold())]
    i = 0
    while i < len(words):
        before, word = words[max(0, i - 6) : i], words[i]
        value, length = (_value(word), 1) if _DIGIT.search(word) else _spelled(words[i : i + 12])
        if word == "none" or (word == "no" and _counts_none(before, words[i + 1 : i + 2])):
            value, length = Fraction(0), 1
        after = words[i + length] if i + length < len(words) else ""
        i += length or 1
        pronoun = word == "one" and length == 1 and (after == "of" or not _PRONOUN.isdisjoint(before[-1:]))
        if length == 0 or pronoun or after in _ORDINAL:
            continue
        rank = 1 if word in {"no", "none"} else _rank(before)
        if rank is not None:
            bounded = after in {"or", "+"} or not _BOUNDS.isdisjoint(before[-1:]) or before[-2:] == ["up", "to"]
            yield Number(None, "", 0) if bounded else Number(value, _UNITS.get(after, ""), rank)


def _counts_none(before: list[str], after: list[str]) -> bool:
    """The word "no" between before and after says zero: "there are no cats", not "no, ..." or "no more than"."""
    return not _ZERO_CUES.isdisjoint(before[-1:]) and bool(after) and after[0].isalpha() and after[0] not in _NOT_ZERO


def _rank(before: list[str]) -> int | None:
    """How strongly the words before a number present it as the answer (see Number); None if they deny it."""
    while before and before[-1] in _SKIPPED:
        before = before[:-1]
    last = before[-1] if before else ""
    if last == "not" or last.endswith("n't"):
        return None
    if "answer" in before[-2:] and last in {"is", ":", "answer"}:
        return 2
    return 1 if last in _CUES or before[-2:] == ["total", "of"] else 0


def _value(run: str) -> Fraction | None:
    """The number a run of characters writes, or None if it is no well-formed number."""
    text = run.replace("$", "").rstrip(".,/")
    if len(text) > _LONGEST:
        return None
    if _GROUPED.fullmatch(text):
        return Fraction(text.replace(",", ""))
    return Fraction(text) if _PLAIN.fullmatch(text) else None


def _spelled(words: list[str]) -> tuple[Fraction | None, int]:
    """A spelled number at the start of words and how many of them it takes; 0 if there is none."""
    total = current = used = 0
    for i, word in enumerate(words):
        after_tens = current % 10 == 0 and current % 100 >= 20
        if word in _WORDS and (current % 100 == 0 or (after_tens and 0 < _WORDS[word] < 10)):
            current += _WORDS[word]
        elif word in _SCALES and (current or not used):
            scaled = (current or 1) * _SCALES[word]
            total, current = (total, scaled) if word == "hundred" else (total + scaled, 0)
        elif used and words[i + 1 : i + 2] and words[i + 1] in _WORDS and _joins(word, total, current):
            continue
        else:
            break
        used = i + 1
        if word == "zero":
            break
    return (Fraction(total + current), used) if used else (None, 0)


def _joins(word: str, total: int, current: int) -> bool:
    """ "twenty-five", "two hundred and five"; but "two and three" are two numbers."""
    if word == "-":
        return current % 10 == 0 and current % 100 >= 20
    return word == "and" and current % 100 == 0 and (total or current) >= 100


def _shown(number: Number) -> str:
    value = number.value
    if value is None:
        return "?"
    text = str(value.numerator) if value.denominator == 1 else f"{float(value):.12g}"
    return text + (number.unit if number.unit == "%" else f" {number.unit}" if number.unit else "")
