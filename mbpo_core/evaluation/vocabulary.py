"""Which words of a caption name an object, and which a colour: the word lists that CHAIR needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


@dataclass(frozen=True)
class Mention:
    """One object named in a caption, and the colour said of it, if any."""

    object: str
    color: str | None


@dataclass(frozen=True)
class Vocabulary:
    """Words of objects (possibly several words, singular or plural) -> object; and colour words."""

    objects: Mapping[str, str]
    colors: frozenset[str] = frozenset()

    def mentions(self, caption: str) -> list[Mention]:
        """Every object that the caption names, in order; repeated mentions count.

        The longest name wins, so that "hot dog" is no dog. A colour belongs to an object when it stands right
        before it ("a red hot dog") or is said of it at once ("the hot dog is red").
        """
        words = split_words(caption)
        longest = max((name.count(" ") + 1 for name in self.objects), default=1)
        found: list[Mention] = []
        start = 0
        while start < len(words):
            for length in range(min(longest, len(words) - start), 0, -1):
                name = self._lookup(words[start : start + length])
                if name is not None:
                    found.append(Mention(name, self._color(words, start, start + length)))
                    break
            else:
                length = 1
            start += length
        return found

    def _lookup(self, words: list[str]) -> str | None:
        *front, last = words
        for form in (last, *_singulars(last)):
            name = self.objects.get(" ".join([*front, form]))
            if name is not None:
                return name
        return None

    def _color(self, words: list[str], start: int, stop: int) -> str | None:
        if start and words[start - 1] in self.colors:
            return words[start - 1]
        after = words[stop : stop + 2]
        if len(after) == 2 and after[0] in ("is", "are") and after[1] in self.colors:
            return after[1]
        return None


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return _WORD.findall(text.lower())


def vocabulary_of(meta: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary of a sample with known objects; None where there is none, and CHAIR cannot be told.

    Args:
        meta: the sample's meta. `vocabulary` is a mapping word -> object, or a list of objects, and `colors` a list of
            colour words; without them a sample with a demo `scene` uses the demo's tables.
    """
    words = meta.get("vocabulary")
    colors = meta.get("colors")
    color_words = frozenset(str(color).lower() for color in colors) if isinstance(colors, list) else frozenset()
    if isinstance(words, dict):
        return Vocabulary({str(word).lower(): str(name) for word, name in words.items()}, color_words)
    if isinstance(words, list):
        return Vocabulary({str(name).lower(): str(name) for name in words}, color_words)
    if isinstance(meta.get("scene"), list):
        return _demo_vocabulary()
    return None


@lru_cache(maxsize=1)
def _demo_vocabulary() -> Vocabulary:
    from mbpo_core.demo.objects import COLORS, object_synonyms

    return Vocabulary(object_synonyms(), frozenset(COLORS))


def _singulars(word: str) -> tuple[str, ...]:
    """Candidate singular forms of a plural in s; the caller keeps the one that its list knows."""
    if len(word) < 3 or not word.endswith("s"):
        return ()
    forms = [word[:-1]]
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    return tuple(forms)
