"""What an answer says about a colour, and what it would say of another one: rules on text."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase

from mbpo_core.negatives.words import WORD, Span, function_words
from mbpo_core.records import Sample

COLOURS: tuple[str, ...] = (
    "black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "grey", "gray",
)  # fmt: skip
"""The basic colour terms of English (Berlin and Kay 1969), grey in both spellings."""

_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)
_VERDICT = re.compile(r"(yes|no)\b", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:not|no|never|without)\b|n['’]t\b", re.IGNORECASE)
_EITHER = re.compile(r"\byes\b\W*(?:or\b\W*)?no\b|\bor not\b", re.IGNORECASE)  # "Answer yes or no." denies nothing
_CLAUSE = re.compile(r"[.,;:!?]")


@dataclass(frozen=True)
class Recast:
    """An answer to the same question about the same picture in another colour.

    Attributes:
        old: the colour that the sample's answer tells; "" where it only tells which it is not.
        new: the colour that the answer below is true of.
        answer: in the form of the sample's answer.
        about: where the sample's answer says which of several things it is, the characters that do: "red car"; None
            where the answer is about one thing.
    """

    old: str
    new: str
    answer: str
    about: Span | None = None


def colours_in(text: str) -> list[str]:
    """The different colour words of a text, lower case, in the order in which they first stand there."""
    return list(dict.fromkeys(match[0].lower() for match in _COLOUR.finditer(text)))


def told_colour(kind: str, question: str, answer: str, choices: Sequence[str]) -> str:
    """The one colour that the answer says something has; "" where it tells none, or several.

    Of a yes the question's colour, of an option its text. What a yes to "is it not red?" means depends on who says it.
    """
    said = colours_in(answer)
    if kind == "multiple_choice":
        place = _chosen(answer, choices)
        said = [] if place is None else colours_in(choices[place])
    elif kind == "yes_no" and not said and _says(answer) == "yes" and not _denies(question):
        said = colours_in(question)
    return said[0] if len(said) == 1 else ""


def recast(sample: Sample, palette: Collection[str], random: Random, *, descriptions: bool = True) -> Recast | None:
    """The answer that would be right if what it is about had another colour of the palette.

    Short and open answers that name a colour, where the question names none; yes or no to a question that names
    one and denies nothing, which turn into each other; the letter or text of an option that is a colour. Of an open
    answer that names several ("a red car and a blue key") one is drawn, and the thing it stands with is what is
    painted.

    Args:
        sample: its question must be about one thing's colour, which only its words can tell.
        palette: colours that can be painted.
        random: draws the new colour, and which of several things gets it.
        descriptions: whether open answers that tell several colours are recast.

    Returns:
        None where the answer tells no colour, or there is no other one.
    """
    if sample.kind == "yes_no":
        return _verdict(sample, palette, random)
    if descriptions and sample.kind == "open" and len(list(_COLOUR.finditer(sample.answer))) > 1:
        return _mention(sample, palette, random)
    old = told_colour(sample.kind, sample.question, sample.answer, sample.choices)
    if not old:
        return None
    if sample.kind == "multiple_choice":
        return _option(sample, old, palette, random)
    others = sorted(set(palette) - {old})
    if sample.kind not in ("short_text", "open") or colours_in(sample.question) or not others:
        return None
    new = random.choice(others)
    return Recast(old, new, _say(sample.answer, old, new))


def _verdict(sample: Sample, palette: Collection[str], random: Random) -> Recast | None:
    asked, said = colours_in(sample.question), _says(sample.answer)
    named = colours_in(sample.answer)
    if len(asked) != 1 or said is None or len(named) > 1 or _denies(sample.question):
        return None
    old = named[0] if named else asked[0] if said == "yes" else ""
    # A no is right of all colours but one: only that one makes another answer of it.
    others = sorted(set(palette) - {asked[0]}) if said == "yes" else sorted(set(palette) & {asked[0]})
    if not others or (said == "yes" and old != asked[0]):
        return None
    new, verdict = random.choice(others), "no" if said == "yes" else "yes"
    start = _VERDICT.match(sample.answer.strip())
    assert start is not None  # `_says` has found it
    rest = sample.answer.strip()[start.end() :]
    cased = verdict.capitalize() if start[0][0].isupper() else verdict
    return Recast(old, new, cased + (_say(rest, old, new) if old else rest))


def _mention(sample: Sample, palette: Collection[str], random: Random) -> Recast | None:
    """One of several colours that a description tells, in whose place another one is said, there alone."""
    if colours_in(sample.question):
        return None
    text = sample.answer.strip()
    mentions = [(match, about) for match in _COLOUR.finditer(text) if (about := _thing(text, match.span()))]
    if not mentions:
        return None
    match, about = random.choice(mentions)
    old = match[0].lower()
    others = sorted(set(palette) - {old})
    if not others:
        return None
    new = random.choice(others)
    # The article before it belongs to it.
    start = match.start() - len(re.search(r"(?:\ban?\s+)?$", text[: match.start()], re.IGNORECASE)[0])  # type: ignore[index]
    answer = text[:start] + _say(text[start : match.end()], old, new) + text[match.end() :]
    return Recast(old, new, answer, about)


def _thing(text: str, colour: Span) -> Span | None:
    """The colour word with the word that it stands with: the next one of its clause, or else the nearest before."""
    start, stop = colour
    end = next((found.start() for found in _CLAUSE.finditer(text, stop)), len(text))
    begin = max((found.end() for found in _CLAUSE.finditer(text, 0, start)), default=0)
    after = WORD.search(text, stop, end)
    if after and _names_a_thing(after[0]):
        return start, after.end()
    before = [word for word in WORD.finditer(text, begin, start) if _names_a_thing(word[0])]
    return (before[-1].start(), stop) if before else None


def _names_a_thing(word: str) -> bool:
    return word.lower() not in function_words() and not _COLOUR.fullmatch(word)


def _option(sample: Sample, old: str, palette: Collection[str], random: Random) -> Recast | None:
    others = [
        place
        for place, text in enumerate(sample.choices)
        if len(named := colours_in(text)) == 1 and named[0] != old and named[0] in palette
    ]
    if not others:
        return None
    place = random.choice(others)
    answer = sample.answer.strip()
    letter = len(answer.rstrip(".)")) == 1
    new_answer = ascii_uppercase[place] + answer[1:] if letter else sample.choices[place]
    return Recast(old, colours_in(sample.choices[place])[0], new_answer)


def _chosen(answer: str, choices: Sequence[str]) -> int | None:
    """The place of the option that the answer names, by letter or by text."""
    letter = answer.strip().rstrip(".)").upper()
    if len(letter) == 1 and letter in ascii_uppercase[: len(choices)]:
        return ascii_uppercase.index(letter)
    named = (place for place, text in enumerate(choices) if text.lower() == answer.strip().lower())
    return next(named, None)


def _denies(question: str) -> bool:
    return _NEGATED.search(_EITHER.sub(" ", question)) is not None


def _says(answer: str) -> str | None:
    found = _VERDICT.match(answer.strip())
    return found[1].lower() if found else None


def _say(text: str, old: str, new: str) -> str:
    """The text with one colour word for another, "a" and "an" with it."""

    def put(match: re.Match[str]) -> str:
        article, gap, word = match[1] or "", match[2] or "", match[3]
        if article:
            cased = "An" if article[0] == "A" else "an"
            article = cased if new[0] in "aeiou" else cased[0]
        return article + gap + (new.capitalize() if word[0].isupper() else new)

    return re.sub(rf"(?:\b(an?)(\s+))?\b({old})\b", put, text, flags=re.IGNORECASE)
