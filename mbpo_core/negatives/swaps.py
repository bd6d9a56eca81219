"""Rules that make an answer wrong by a few words; text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random
from string import ascii_uppercase

from mbpo_core.negatives.words import function_words
from mbpo_core.verifiers.registry import extract

_PIECES = re.compile(r"\d+(?:\.\d+)?|\w+(?:['’-]\w+)*|[^\w\s]")
_REACHES = (2, 1)  # pieces of a frame on either side; the wider one comes first
_RELATIONS = {"above", "behind", "below", "beside", "between", "inside", "near", "outside", "over", "under"}
"""Words of grammar that say something about a picture all the same."""
_COUNTS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_FLIPS = {"yes": "no", "no": "yes"}
_DENIED, _STATED = re.compile(r"\b(there (?:is|are)) no\b", re.I), re.compile(r"\b(there is) an?\b", re.I)

Swap = tuple[str, str]


class Kin:
    """Words by the frames they stand in: two pieces (words, punctuation) before and two behind, case aside.

    "yellow" and "green" are kin by "banana is _ ." Where nothing else stood in that frame, one piece on either side
    will do: "is _ ." Where an answer is one word, the other ones are its kin. Words of grammar have none.

    Args:
        answers: to questions of one kind.
    """

    def __init__(self, answers: Iterable[str]) -> None:
        self._frames: dict[tuple[str, ...], dict[str, str]] = {}
        for answer in answers:
            pieces = _PIECES.findall(answer)
            for place in filter(lambda place: _has_kin(pieces[place]), range(len(pieces))):
                for reach in _REACHES:
                    frame = self._frames.setdefault(_frame(pieces, place, reach), {})
                    frame.setdefault(pieces[place].casefold(), pieces[place])

    def of(self, pieces: Sequence[str], place: int) -> list[str]:
        """The words that stood in the same frame, without this one, in the order of the alphabet."""
        if not _has_kin(pieces[place]):
            return []
        for reach in _REACHES:
            found = self._frames.get(_frame(pieces, place, reach), {})
            if others := [found[word] for word in sorted(found) if word != pieces[place].casefold()]:
                return others
        return []


def swap_words(answer: str, question: str, kin: Kin, count: int, random: Random) -> tuple[str, list[Swap]]:
    """The answer with at most `count` words changed, and what was put for what, in the order of the answer.

    A number goes up or down by 1; any other word gives way to one of its kin. Words that the question says are left
    alone as long as there are others: what the answer tells is in those.
    """
    matches = list(_PIECES.finditer(answer))
    pieces = [match[0] for match in matches]
    options = {place: found for place in range(len(pieces)) if (found := _options(pieces, place, kin))}
    asked = {piece.casefold() for piece in _PIECES.findall(question)}
    places = [place for place in options if pieces[place].casefold() not in asked] or list(options)
    chosen = {place: random.choice(options[place]) for place in random.sample(places, min(count, len(places)))}
    swaps = {place: (pieces[place], _like(pieces[place], chosen[place])) for place in sorted(chosen)}
    text = answer
    for place in sorted(swaps, reverse=True):
        text = text[: matches[place].start()] + swaps[place][1] + text[matches[place].end() :]
    return text, list(swaps.values())


def flip(answer: str) -> tuple[str, list[Swap]]:
    """A leading yes or no turned into the other; "there is no" and "there is a" are turned along with it."""
    first = _PIECES.search(answer)
    if first is None or first[0].casefold() not in _FLIPS:
        return answer, []
    new = _like(first[0], _FLIPS[first[0].casefold()])
    rest = answer[first.end() :]
    if new.casefold() == "yes":
        rest = _DENIED.sub(lambda found: f"{found[1]} a" if found[1].endswith("is") else found[1], rest)
    else:
        rest = _STATED.sub(r"\1 no", rest)
    return answer[: first.start()] + new + rest, [(first[0], new)]


def other_choice(answer: str, choices: Sequence[str], random: Random) -> tuple[str, list[Swap]]:
    """The letter and the text of the chosen option, as far as they stand there, turned into another option's."""
    right = extract("multiple_choice", answer, choices)
    letters = ascii_uppercase[: len(choices)]
    if right is None or right not in letters or len(choices) < 2:
        return answer, []
    wrong = random.choice([letter for letter in letters if letter != right])
    old, new = choices[letters.index(right)], choices[letters.index(wrong)]
    text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, answer, flags=re.I)
    # A letter alone: "A dog" has none.
    text = re.sub(rf"(?<!\w){right}(?=[.):,]|\s*$)", wrong, text)
    return (text, [(right, wrong)]) if text != answer else (answer, [])


def uncapitalised(text: str) -> str:
    """The text to go on a sentence with: a small first letter, unless the first word is "I" or in capitals."""
    word = text.split(maxsplit=1)[0] if text.split() else ""
    return text[:1].lower() + text[1:] if word[1:] == word[1:].lower() and not re.match(r"I\b", text) else text


def _options(pieces: Sequence[str], place: int, kin: Kin) -> list[str]:
    """What may stand in the place of a piece."""
    word = pieces[place].casefold()
    if re.fullmatch(r"\d+(?:\.\d+)?", word):
        whole, point, decimals = word.partition(".")
        return [f"{value}{point}{decimals}" for value in (int(whole) - 1, int(whole) + 1) if value >= 0]
    if word in _COUNTS:
        number = _COUNTS.index(word)
        return [_COUNTS[value] for value in (number - 1, number + 1) if 0 <= value < len(_COUNTS)]
    return kin.of(pieces, place)


def _frame(pieces: Sequence[str], place: int, reach: int) -> tuple[str, ...]:
    padded = [""] * reach + [piece.casefold() for piece in pieces] + [""] * reach
    return (*padded[place : place + reach], *padded[place + reach + 1 : place + 2 * reach + 1])


def _has_kin(piece: str) -> bool:
    word = piece.casefold()
    return piece[0].isalnum() and (word not in function_words() or word in _RELATIONS)


def _like(old: str, new: str) -> str:
    """The new word with the old one's first letter's case."""
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
