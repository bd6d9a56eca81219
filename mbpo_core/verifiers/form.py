"""Does an answer take the form the question asks for? Form only; truth is the verifiers' business."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers import box, multiple_choice, yes_no
from mbpo_core.verifiers.judgement import TEXT_LIMIT
from mbpo_core.verifiers.math_worker import boxed
from mbpo_core.verifiers.text import clean, sentences, tokens

LONGEST = 400
"""Longest answer of any declared form but boxed, characters: an essay is in no form."""

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*\.?")
_LETTER = re.compile(r"\(?([A-Z])\)?\.?")
_NUMBER = re.compile(r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?\s?%?\.?")


def follows_form(answer_form: str, kind: str, text: str, choices: Sequence[str] = ()) -> bool:
    """Whether text is a whole sentence, one word, one option letter, one number, one box, or (free) anything short.

    - sentence: one sentence of three words or more that starts with a capital letter or digit
      and ends in a full stop (or ! or ?);
    - word: a single word; of a yes_no question yes or no; a final full stop is allowed;
    - letter: the capital letter of an option, also as "(B)", "B)" or "B.";
    - number: digits with sign, thousands separators, decimals, percent; not a spelled number;
    - corners: one box in brackets, "[10, 20, 30, 40]" or "(10, 20), (30, 40)", and nothing else;
    - boxed: any text with one LaTeX \\boxed{...}; it may be long, for the way to the answer stands before it;
    - free: any text that is not empty.

    Raises:
        VerifierError: the form is unknown.
    """
    if answer_form not in _FORMS:
        raise VerifierError(f"unknown answer form {answer_form!r}", expected=f"one of {', '.join(_FORMS)}")
    plain = clean(text)
    longest = TEXT_LIMIT if answer_form == "boxed" else LONGEST
    return 0 < len(plain) <= longest and _FORMS[answer_form](plain, kind, choices)


def _sentence(text: str, kind: str, choices: Sequence[str]) -> bool:
    starts = text[0].isupper() or text[0].isdigit()
    return starts and text[-1] in ".!?" and len(sentences(text)) == 1 and len(tokens(text, articles=True)) >= 3


def _word(text: str, kind: str, choices: Sequence[str]) -> bool:
    return _WORD.fullmatch(text) is not None and (kind != "yes_no" or yes_no.extract(text) is not None)


def _letter(text: str, kind: str, choices: Sequence[str]) -> bool:
    match = _LETTER.fullmatch(text)
    return match is not None and match[1] in multiple_choice.letters(choices)


def _number(text: str, kind: str, choices: Sequence[str]) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _corners(text: str, kind: str, choices: Sequence[str]) -> bool:
    return box.is_box(text)


def _boxed(text: str, kind: str, choices: Sequence[str]) -> bool:
    contents = boxed(text)
    return len(contents) == 1 and contents[0] != ""


def _free(text: str, kind: str, choices: Sequence[str]) -> bool:
    return True


_FORMS: dict[str, Callable[[str, str, Sequence[str]], bool]] = {
    "sentence": _sentence,
    "word": _word,
    "letter": _letter,
    "number": _number,
    "corners": _corners,
    "boxed": _boxed,
    "free": _free,
}
