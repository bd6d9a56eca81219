"""What sort of question a row asks, and which form its answer takes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any, get_args

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import VerifierError
from mbpo_core.records import CLOSED_KINDS, AnswerForm, Kind
from mbpo_core.samples.problems import Unusable
from mbpo_core.verifiers.registry import PLAIN, extract, follows_form, require_answer, rules_of
from mbpo_core.verifiers.short_text import LONGEST_REFERENCE
from mbpo_core.verifiers.text import tokens

SHORT = 3  # words of a short_text answer, at most
LETTER_REQUEST = "Answer with the letter."

_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}


def infer_kind(answer: str, choices: Sequence[str]) -> Kind:
    """multiple_choice where there are options, yes_no or numeric or short_text (SHORT words) by the answer, else open.

    Only a bare yes or no ("Yes." but not "Yes, there is a dog.") and a bare number ("3", "three",
    "50%") count: a sentence stays open unless a kind column says more.
    """
    if choices:
        return "multiple_choice"
    words = tokens(answer)
    if words in (["yes"], ["no"]):
        return "yes_no"
    if len(words) <= SHORT and extract("numeric", answer) is not None and _only_a_number(answer):
        return "numeric"
    return "short_text" if 0 < len(words) <= SHORT else "open"


def declared_kind(value: Any) -> Kind:
    """The kind that a column names.

    Raises:
        Unusable: unknown_kind, naming the closest known one.
    """
    name = str(value).strip().lower().replace("-", "_").replace(" ", "_")
    if name in _KINDS:
        return _KINDS[name]
    close = difflib.get_close_matches(name, _KINDS, n=1)
    hint = f"; did you mean {close[0]}" if close else ""
    raise Unusable("unknown_kind", f"{value!r:.80} is none of {', '.join(_KINDS)}{hint}")


def infer_form(kind: Kind, answer: str, choices: Sequence[str]) -> AnswerForm:
    """The strictest form that the answer follows: the kind's own, then a sentence, else free."""
    own: dict[Kind, AnswerForm] = {
        "yes_no": "word",
        "numeric": "number",
        "multiple_choice": "letter",
        "short_text": "word",
        "counting": "number",
        "box": "corners",
        "math": "boxed",
    }
    for form in (own.get(kind), "sentence" if kind in CLOSED_KINDS else None):
        if form is not None and follows_form(form, kind, answer, choices):
            return form
    return "free"


def with_rules(meta: str, kind: Kind, answer: str, aliases: Sequence[str], config: SamplesConfig) -> str:
    """The meta, with what the settings declare of how the answer is judged; what the row itself declares comes first.

    Aliases that say what the answer or an earlier one says, or are no short answers, are left out.
    """
    declared: dict[str, Any] = {}
    if kind == "short_text":
        worded = {" ".join(tokens(text)): text for text in reversed([answer, *aliases])}
        worded.pop(" ".join(tokens(answer)))
        declared["aliases"] = [text for text in reversed(worded.values()) if 0 < len(tokens(text)) <= LONGEST_REFERENCE]
    elif kind == "numeric":
        declared["tolerance"] = config.tolerance
    elif kind == "box":
        declared |= {"box_scale": config.box_scale, "box_iou": config.box_iou}
    rules = rules_of(json.dumps(declared))
    changed = {name: value for name, value in declared.items() if getattr(rules, name) != getattr(PLAIN, name)}
    return json.dumps({**changed, **json.loads(meta)}, ensure_ascii=False, sort_keys=True) if changed else meta


def check_answer(kind: Kind, form: AnswerForm, answer: str, choices: Sequence[str], meta: str = "{}") -> None:
    """The reference answer takes the declared form, and its verifier can read it.

    Raises:
        Unusable: answer_not_in_form.
    """
    # An open answer may be long: "free" bounds only what closed questions are answered with.
    if not (form == "free" and kind not in CLOSED_KINDS) and not follows_form(form, kind, answer, choices):
        raise Unusable("answer_not_in_form", f"the answer {answer!r:.120} is not in the form {form!r}")
    if kind in CLOSED_KINDS:
        try:
            require_answer(kind, answer, choices, rules_of(meta))
        except VerifierError as error:
            raise Unusable("answer_not_in_form", str(error)) from error


def with_options(question: str, choices: Sequence[str], form: AnswerForm) -> str:
    """The question with its options listed A, B, ... below it, unless it already shows all of them."""
    shown = question.casefold()
    if all(choice.casefold() in shown for choice in choices):
        return question
    lines = [question, *(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))]
    return "\n".join([*lines, LETTER_REQUEST] if form == "letter" else lines)


def _only_a_number(answer: str) -> bool:
    """Every word belongs to the number: "25", "twenty five", "50 %", but not "room 3" or "3 dogs"."""
    text = answer.strip().rstrip(".")
    words = tokens(text)
    return follows_form("number", "numeric", text) or (
        "none" not in words and all(extract("numeric", w) for w in words)
    )
