"""Multiple choice: an option's letter, its text, or both if they agree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers import short_text
from mbpo_core.verifiers.judgement import Judgement, Reading, compare
from mbpo_core.verifiers.rules import PLAIN, Rules
from mbpo_core.verifiers.text import clean, sentences, tokens

NAME, VERSION = "multiple_choice", 2  # 2: an announced letter with another option's text is unclear
UNLISTED = "ABCDEFGH"  # letters accepted where the options are not known

_LEADING = re.compile(r"\(?([A-Za-z])(?:(\s?[).:,]|\s-|$)|(?=\s))\s?")
_ANNOUNCED = re.compile(
    r"\b(?i:answer|option|choice)(?i:\sis)?(?:\s?:)?(?i:\soption|\schoice)?[\s:]\(?([A-Za-z])(?=(\)|[.,:;!]|$|\s))"
)
_NEGATED = re.compile(
    r"\b(?i:not|isn't|rather than|instead of)\s(?i:option\s)?\(?[A-Z]\)?(?![\w'])"
    r"|(?i:\boption\s|\banswer\s)?\(?\b[A-Z]\)?\s(?i:is|are)\s(?i:not|wrong|incorrect)\b"
)
_LONGEST_OPTION = 200  # characters behind an announced letter that are looked at
_STANDING = re.compile(r"(?<![\w'.])\(?([A-Z])(?=[).:,;!?]|\s|$)")


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The capital letter of the option that a text names, or None."""
    return read(text, choices).value


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Compare letters; the reference may be a letter or an option's text.

    Raises:
        VerifierError: the reference names no option.
    """
    gold = read(answer, choices)
    if gold.value is None:
        raise VerifierError(
            f"multiple_choice cannot read the reference answer {answer!r:.120}: {gold.reason}",
            expected=f"one of {letters(choices)} or an option's text",
            remedy="Correct the answer or the options.",
        )
    return compare(read(text, choices), gold.value)


def letters(choices: Sequence[str]) -> str:
    """The letters on offer: one an option, or UNLISTED where the options are not known."""
    return ascii_uppercase[: len(choices)] if choices else UNLISTED


def read(text: str, choices: Sequence[str]) -> Reading:
    """An announced letter ("the answer is B"), else a leading one ("B) dog"), else an option's text ("a dog")."""
    plain = " ".join(_NEGATED.sub(" ", clean(text)).split())
    offered = letters(choices)
    said = [match for match in _ANNOUNCED.finditer(plain) if match[1].isupper() or match[2] in {")", ".", ""}]
    announced = {match[1].upper() for match in said} & set(offered)
    named = _by_text(plain, choices) or next(filter(None, (_text_after(plain, match, choices) for match in said)), None)
    if len(announced) == 1 and named in ({None} | announced):
        letter = announced.pop()
        return Reading(letter, f"announces {letter}")
    if announced:
        return Reading(
            None, f"announces {', '.join(sorted(announced))}" + (f" and the text of {named}" if named else "")
        )
    leading = _leading(plain, choices, offered)
    if leading is not None:
        return leading
    if named:
        return Reading(named, f"gives the text of {named}")
    return Reading(None, f"names none of {offered}")


def _text_after(plain: str, letter: re.Match[str], choices: Sequence[str]) -> str | None:
    """The letter of the option whose text follows an announced letter: "the answer is (B) dog"."""
    following = sentences(plain[letter.end() : letter.end() + _LONGEST_OPTION].lstrip(").:,;- "))
    return _by_text(following[0], choices) if following else None


def _leading(plain: str, choices: Sequence[str], offered: str) -> Reading | None:
    """The letter a text starts with, if it can be told from a word ("A cat", "I.", "Banana")."""
    match = _LEADING.match(plain)
    if match is None or match[1].upper() not in offered:
        return None
    letter, mark, rest = match[1].upper(), (match[2] or "").strip(), plain[match.end() :]
    own = choices[offered.index(letter)] if choices else ""
    bare = match[2] is None  # a space follows: "A cat", "B dog", "b dog"
    if bare and (match[1].islower() or letter in "AI") and tokens(rest) != tokens(own):
        return None
    if letter == "I" and mark in {".", ","}:
        return None
    if own and clean(rest).casefold().startswith(clean(own).casefold()):
        rest = clean(rest)[len(clean(own)) :]  # letters inside the option's own text do not count
    else:
        other = _by_text(rest, choices)
        if other and other != letter:
            return Reading(None, f"gives the letter {letter} with the text of {other}")
    further = {found for found in _standing(rest) if found in offered and found != letter}
    if further:
        return Reading(None, f"names {', '.join(sorted({letter, *further}))}")
    return Reading(letter, f"starts with {letter}")


def _standing(text: str) -> set[str]:
    """Capital letters that stand alone, except the article A and the pronoun I before a word."""
    found = set()
    for match in _STANDING.finditer(text):
        word_follows = re.match(r"\s\w", text[match.end() : match.end() + 2])
        if not (match[1] in "AI" and word_follows):
            found.add(match[1])
    return found


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the one option whose text the short answer equals."""
    found = short_text.extract(text)
    whole = " ".join(tokens(text))
    matches = [
        ascii_uppercase[i]
        for i, choice in enumerate(choices)
        if " ".join(tokens(choice)) in ({found, whole} - {None, ""})
    ]
    return matches[0] if len(matches) == 1 else None
