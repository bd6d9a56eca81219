"""Reading plain text: clean-up, tokens, sentences and the claims they make.

Every pattern here matches in time linear in the text: no nested or overlapping repeats.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

ARTICLES = frozenset({"a", "an", "the"})
COPULAS = frozenset({"is", "are", "was", "were", "looks", "look", "appears", "appear", "seems", "seem"})
FRAGMENT = 6  # tokens: a longer text without a verb of COPULAS is no short answer
LATER_FRAGMENT = 2  # tokens: after the first sentence only this short a text is another answer

_LOOKALIKES = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "−": "-", "–": "-", "—": "-", "`": "", "*": "", "\u00a0": " "}
)
_BREAKS = re.compile(r"[\s\-/,:;!?()\[\]{}\"]")
_SENTENCES = re.compile(r"[.!?](?=\s|$)|[;\n]")
_CONTRACTED = {"it's", "that's", "there's", "what's", "this's", "he's", "she's", "here's"}
_SPELLINGS = {"grey": "gray", "colour": "color", "coloured": "colored", "colours": "colors", "greyish": "grayish"}
_LEADING = frozenset({"at", "in", "on", "to", "be", "like"})
_TRAILING = (
    ("in", "image"), ("in", "picture"), ("in", "photo"), ("in", "scene"), ("in", "color"), ("color",), ("colored",),
)  # fmt: skip
_CONTRASTS = (("rather", "than"), ("instead", "of"), ("not",))


def clean(text: str) -> str:
    """The text without markdown emphasis, with plain quotes, dashes and full-width characters."""
    if not text.isascii():
        wide = (c for c in text if unicodedata.decomposition(c).startswith("<wide>"))
        text = text.translate({ord(c): unicodedata.normalize("NFKC", c) for c in wide})
        text = unicodedata.normalize("NFC", text)
    return text.translate(_LOOKALIKES).strip()


def tokens(text: str, *, articles: bool = False) -> list[str]:
    """Lower-case words and numbers without punctuation; articles are left out unless nothing else is there."""
    found: list[str] = []
    for piece in _BREAKS.split(clean(text).casefold()):
        word = piece.strip("'.…")
        if not word:
            continue
        if word in _CONTRACTED:
            found += [word[:-2], "is"]
        elif word.endswith("'re"):
            found += [word[:-3], "are"]
        elif word.endswith("n't"):
            found += ["can" if word == "can't" else word[:-3], "not"]
        else:
            found.append(_SPELLINGS.get(word, word))
    if articles:
        return found
    return [word for word in found if word not in ARTICLES] or found


def sentences(text: str) -> list[str]:
    """Pieces between sentence ends and line breaks, without empty ones; "3.5" is not cut."""
    return [piece.strip() for piece in _SENTENCES.split(clean(text)) if piece.strip()]


@dataclass(frozen=True)
class Claim:
    """What one sentence says: subject is what stands before its verb, value what stands after it."""

    subject: tuple[str, ...]
    value: tuple[str, ...]
    is_answer: bool = False  # introduced by "the answer is" or "answer:"


def claims(text: str) -> list[Claim]:
    """The short answers a text gives, sentence by sentence.

    "The banana is green." claims green of banana, "Green" claims green of nothing. A question
    claims nothing, nor does a long sentence without one of COPULAS. Where a sentence announces
    the answer ("The answer is green"), only such sentences count.
    """
    found = list(_claims(text))
    return [claim for claim in found if claim.is_answer] or found


def _claims(text: str) -> Iterator[Claim]:
    for number, sentence in enumerate(sentences(text)):
        words = tokens(sentence)
        split = next((i for i, word in enumerate(words) if word in COPULAS), -1)
        subject: list[str] = []
        value = words
        if split > 0:
            subject, value = words[:split], words[split + 1 :]
        elif split == 0:
            continue  # "Is it green"
        elif words[:1] == ["answer"] or words[:2] == ["final", "answer"]:
            subject, value = words[:2], words[words.index("answer") + 1 :]
        elif len(words) > (LATER_FRAGMENT if number else FRAGMENT):
            continue
        value = _trim(value)
        if value:
            yield Claim(tuple(subject), tuple(value), is_answer="answer" in subject)


def _trim(words: list[str]) -> list[str]:
    """The words without leading prepositions, trailing fillers and a trailing "not ...", never down to nothing."""
    for contrast in _CONTRASTS:
        for i in range(1, len(words)):
            if tuple(words[i : i + len(contrast)]) == contrast:
                words = words[:i]
                break
    while len(words) > 1 and words[-1] in {"and", "but"}:
        words = words[:-1]
    while len(words) > 1 and words[0] in _LEADING:
        words = words[1:]
    for filler in _TRAILING:
        if len(words) > len(filler) and tuple(words[-len(filler) :]) == filler:
            words = words[: -len(filler)]
    return words
