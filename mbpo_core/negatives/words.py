"""Words of a response: which may name something in a picture, where they stand, and which are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

Span = tuple[int, int]
"""Characters [start, stop) of a text."""


@dataclass(frozen=True)
class Topic:
    """A content word of a response with all its repetitions, singular or plural.

    Attributes:
        text: its first form, in lower case.
        positions: where it stands, counted in words of the response from 0; ascending.
        spans: the same in characters, [start, stop).
    """

    text: str
    positions: tuple[int, ...]
    spans: tuple[Span, ...]

    def within(self, about: Span | None) -> Topic | None:
        """Its repetitions inside a span of characters; None where there is none. Without a span, itself."""
        if about is None:
            return self
        start, stop = about
        kept = [
            (place, span)
            for place, span in zip(self.positions, self.spans, strict=True)
            if start <= span[0] and span[1] <= stop
        ]
        return Topic(self.text, tuple(p for p, _ in kept), tuple(s for _, s in kept)) if kept else None


def topics(text: str) -> list[Topic]:
    """The content words of a text, in the order in which they first stand there.

    Function words, numbers, and words of one letter are left out, but count as positions.
    """
    found: list[Topic] = []
    for position, match in enumerate(WORD.finditer(text)):
        word = match[0].lower().replace("’", "'").removesuffix("'s")
        if len(word) < 2 or word in function_words() or not any(map(str.isalpha, word)):
            continue
        place = next((place for place, topic in enumerate(found) if same_word(topic.text, word)), None)
        if place is None:
            found.append(Topic(word, (position,), (match.span(),)))
        else:
            known = found[place]
            found[place] = Topic(known.text, (*known.positions, position), (*known.spans, match.span()))
    return found


@lru_cache(maxsize=1)
def function_words() -> frozenset[str]:
    """English words that name no place in a picture: function_words.txt, lines of words and of comments (#)."""
    text = resources.files("mbpo_core.negatives").joinpath("function_words.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def same_word(one: str, other: str) -> bool:
    """Whether two lower-case words are equal but for a regular plural: box and boxes, berry and berries."""
    return one in _singulars(other) or other in _singulars(one)


def _singulars(word: str) -> set[str]:
    """The word, and every form of which it could be the regular plural."""
    forms = {word}
    if word.endswith("s"):
        forms.add(word[:-1])
    if word.endswith("es"):
        forms.add(word[:-2])
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    return forms
