"""Reading numbers out of text: digits and words, thousands, fractions, powers of ten, percent and units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from mbpo_core.verifiers.text import clean
from mbpo_core.verifiers.units import UNITS, Unit, unit_after

# A maximal run of what numbers are written with; _value then accepts only well-formed ones, so that
# "1,23", "3,4" and "12/05/2020" are unreadable rather than half read.
_TOKENS = re.compile(
    r"(?P<run>(?<![\w.])[-+]?(?:[$€£¥₹]\s?)?[0-9][0-9.,/²³¹]*(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<word>(?:°\s?)?[A-Za-zµ]+(?:'[A-Za-z]+)?(?:[²³]|[23](?![0-9]))?)|(?P<mark>[^\s\w])"
)
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_PLAIN = re.compile(r"[-+]?(?:[0-9]+|[0-9]+\.[0-9]+)(?:e[-+]?[0-9]{1,2})?")
_RATIO = re.compile(r"[-+]?[0-9]+/[0-9]*[1-9][0-9]*")
_CURRENCY = re.compile(r"[$€£¥₹]")
_LONGEST = 40  # characters of one number

_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_ANY_VULGAR = re.compile(f"([0-9]?)([{''.join(_VULGAR)}])")
_THIN_SPACE = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_STAR = re.compile(r"(?<=[0-9])\s?(?:\*{1,2}|\\times)\s?(?=[0-9])")  # `clean` takes stars for emphasis
_POWER = re.compile(r"(?<=[0-9])\s?[x×·]\s?10\s?(?:\^\s?[{(]?([-+]?[0-9]{1,2})[})]?|([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}))")
_MATHS = re.compile(r"\$(?=\S)([^$\n]{0,80}\S)\$")  # "$5$" is LaTeX, "$5 and $6" are dollars
_SUPERSCRIPT = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SHORT_SCALES = {"k": 1000, "M": 10**6, "bn": 10**9, "B": 10**9}  # "5k", "$3M"; as they are written
_ONE_PART = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_PARTS = {**_ONE_PART, "halves": 2, **{word + "s": parts for word, parts in _ONE_PART.items()}}
_ORDINAL = frozenset({"st", "nd", "rd", "th"})
_SKIPPED = frozenset({"a", "the", "exactly", "only", "just", "about", "around", "approximately", "roughly"})
_CUES = frozenset({"is", "are", "was", "were", "count", "counted", "see", "equals", "equal", "=", "total"})
_ZERO_CUES = frozenset({"is", "are", "was", "were", "see", "has", "have", "contains", "shows"})  # "there are no cats"
_NOT_ZERO = frozenset({"more", "less", "fewer", "other", "idea", "doubt", "way"})  # "no more than"
_BOUNDS = frozenset({"than", "least", "most", "over", "under", "nearly", "almost", "between"})  # "more than 3"
_PRONOUN = frozenset({"the", "this", "that", "no", "any", "each", "another", "which", "every"})  # "this one"
_POINTERS = frozenset({"the", "this", "that"})  # "the red one"
_MINUS = frozenset({"minus", "negative"})


@dataclass(frozen=True)
class Number:
    """A number found in a text.

    Attributes:
        value: None if it is malformed, or only a bound of the number ("more than 3").
        unit: that stands with it, if any.
        rank: 2 announced as the answer, 1 after a verb, 0 otherwise.
        ratio: written as a fraction ("1/2", "one half"), which is a share of 1 by itself.
    """

    value: Fraction | None
    unit: Unit | None = None
    rank: int = 0
    ratio: bool = False

    def shown(self) -> str:
        """In digits, with its unit: "3", "0.5", "25%", "5 cm"."""
        if self.value is None:
            return "?"
        text = str(self.value.numerator) if self.value.denominator == 1 else f"{float(self.value):.12g}"
        symbol = self.unit.symbol if self.unit else ""
        return text + (symbol if symbol in ("", "%") else f" {symbol}")


class Token(NamedTuple):
    """A piece of the text: a run of digits, a word in lower case, or a mark."""

    text: str
    written: str
    is_run: bool
    gap: str  # what stands between it and the piece before it


def numbers(text: str) -> Iterator[Number]:
    """Numbers in order; ordinals, "this one" and denied numbers ("not 4") are left out."""
    found = tokens_of(text)
    words = [token.text for token in found]
    i = 0
    while i < len(words):
        before, word = words[max(0, i - 6) : i], words[i]
        number, length = _at(found, words, i)
        if word == "none" or (word == "no" and _counts_none(before, words[i + 1 : i + 2])):
            number, length = Number(Fraction(0)), 1
        after = words[i + length] if i + length < len(words) else ""
        i += length or 1
        pronoun = word == "one" and length == 1 and (after == "of" or _points(before))
        if length == 0 or pronoun or after in _ORDINAL:
            continue
        if before and before[-1] in _MINUS:
            before, number = before[:-1], replace(number, value=None if number.value is None else -number.value)
        rank = 1 if word in {"no", "none"} else rank_after(before)
        if rank is not None:
            bounded = after in {"or", "+"} or not _BOUNDS.isdisjoint(before[-1:]) or before[-2:] == ["up", "to"]
            yield Number(None) if bounded else replace(number, unit=number.unit or _unit(words, i, before), rank=rank)


def tokens_of(text: str) -> list[Token]:
    """The pieces that numbers are read from."""
    found, end = [], 0
    plain = _prepared(text)
    for match in _TOKENS.finditer(plain):
        written = match[0].replace(" ", "")
        found.append(Token(written.casefold(), written, match["run"] is not None, plain[end : match.start()]))
        end = match.end()
    return found


def rank_after(before: list[str]) -> int | None:
    """How strongly the words before a number present it as the answer (see Number); None if they deny it."""
    while before and before[-1] in _SKIPPED:
        before = before[:-1]
    last = before[-1] if before else ""
    if last == "not" or last.endswith("n't"):
        return None
    if "answer" in before[-2:] and last in {"is", ":", "answer"}:
        return 2
    return 1 if last in _CUES or before[-2:] == ["total", "of"] else 0


def _prepared(text: str) -> str:
    """The text, cleaned, with fractions and powers of ten written in digits."""
    text = _STAR.sub(" × ", _MATHS.sub(r"\1", _THIN_SPACE.sub("", text)))
    text = clean(text).replace("\u2044", "/").replace("μ", "µ")
    text = _POWER.sub(lambda m: f"e{m[1] or m[2].translate(_SUPERSCRIPT)}", text)
    return _ANY_VULGAR.sub(lambda m: f"{m[1]} {_VULGAR[m[2]]}" if m[1] else _VULGAR[m[2]], text)


def _at(found: Sequence[Token], words: Sequence[str], i: int) -> tuple[Number, int]:
    """The number that starts at a token and how many tokens it takes; 0 if none does."""
    if found[i].is_run:
        number, length = _in_digits(found, i)
    elif _is_half(words, i):
        number, length = Number(Fraction(1, 2), ratio=True), 1
        if words[i + 1 : i + 3] == ["a", "dozen"] or words[i + 1 : i + 2] == ["dozen"]:
            return Number(Fraction(6)), 3 if words[i + 1] == "a" else 2
    else:
        value, length = _spelled(words[i : i + 12])
        number = Number(value)
    if length == 0 or number.value is None:
        return number, length
    return _with_parts(number, words, i, length)


def _in_digits(found: Sequence[Token], i: int) -> tuple[Number, int]:
    """A run of digits, with the fraction or the word for its size behind it: "3", "3 1/2", "3.5 million"."""
    text = found[i].text
    symbol = _CURRENCY.search(text)
    plain = _CURRENCY.sub("", text)
    number = Number(_value(plain), UNITS[symbol[0]] if symbol else None, ratio=_RATIO.fullmatch(plain) is not None)
    following = found[i + 1] if i + 1 < len(found) else None
    if number.value is None or following is None or following.gap.strip():
        return number, 1
    if plain.lstrip("+-").isdigit() and following.is_run and _RATIO.fullmatch(following.text):
        part = _value(following.text)
        if part is not None and 0 < part < 1 and following.text[0].isdigit():
            return replace(number, value=number.value + (-part if plain[0] == "-" else part)), 2
    scale = _SCALES.get(following.text) or (not following.gap and _SHORT_SCALES.get(following.written))
    if scale and not number.ratio:
        return replace(number, value=number.value * scale), 2
    return number, 1


def _with_parts(number: Number, words: Sequence[str], i: int, length: int) -> tuple[Number, int]:
    """The number with what words add to it: "two thirds", "three and a half", "two dozen"."""
    assert number.value is not None
    following = list(words[i + length : i + length + 3])
    if following[:1] == ["dozen"]:
        return replace(number, value=number.value * 12), length + 1
    if following == ["and", "a", "half"] or following == ["and", "a", "quarter"]:
        return replace(number, value=number.value + Fraction(1, _PARTS[following[2]])), length + 3
    word, whole = (following or [""])[0], number.value
    if word in _PARTS and whole.denominator == 1 and 0 < whole < 20 and (whole == 1) == (word in _ONE_PART):
        return Number(whole / _PARTS[word], ratio=True), length + 1
    return number, length


def _is_half(words: Sequence[str], i: int) -> bool:
    """Half says a number by itself: "half", "half of them", "is half", "a half"; not "the left half"."""
    first = i == 0 or words[i - 1] in _CUES or words[i - 1] in _SKIPPED or not words[i - 1].isalnum()
    return words[i] == "half" and first and words[i + 1 : i + 2] != ["past"]


def _unit(words: Sequence[str], end: int, before: Sequence[str]) -> Unit | None:
    """The unit behind a number, or the currency before it ("USD 5")."""
    unit = unit_after(words[end : end + 3])
    if unit is None and before and before[-1] in {"usd", "eur", "gbp", "jpy", "cny", "inr"}:
        return UNITS[before[-1]]
    return unit


def _points(before: Sequence[str]) -> bool:
    """The words before "one" make a pronoun of it: "this one", "the red one"."""
    return not _PRONOUN.isdisjoint(before[-1:]) or not _POINTERS.isdisjoint(before[-2:-1])


def _counts_none(before: list[str], after: list[str]) -> bool:
    """The word "no" between before and after says zero: "there are no cats", not "no, ..." or "no more than"."""
    return not _ZERO_CUES.isdisjoint(before[-1:]) and bool(after) and after[0].isalpha() and after[0] not in _NOT_ZERO


def _value(run: str) -> Fraction | None:
    """The number a run of characters writes, or None if it is no well-formed number."""
    text = run.rstrip(".,/")
    if len(text) > _LONGEST:
        return None
    if _GROUPED.fullmatch(text):
        return Fraction(text.replace(",", ""))
    return Fraction(text) if _PLAIN.fullmatch(text) or _RATIO.fullmatch(text) else None


def _spelled(words: Sequence[str]) -> tuple[Fraction | None, int]:
    """A spelled number at the start of words and how many of them it takes; 0 if there is none."""
    if words[0] == "dozen":
        return Fraction(12), 1
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
