"""Reading the cells of a raw row: texts, answers, options, conversations."""

from __future__ import annotations

import json
import re
from collections import Counter
from string import ascii_uppercase
from typing import Any, Literal

from mbpo_core.samples.paths import is_missing
from mbpo_core.samples.problems import Unusable
from mbpo_core.verifiers.text import tokens

_IMAGE_TOKEN = re.compile(r"[ \t]*\n?<image(?:\s?/)?>\n?[ \t]*")
_USER = frozenset({"human", "user"})
_ASSISTANT = frozenset({"gpt", "assistant", "model"})


def text_of(value: Any, column: str) -> str:
    """A cell as text without outer white space and `<image>` placeholders.

    Raises:
        Unusable: missing_value where nothing is left.
    """
    if is_missing(value):
        raise Unusable("missing_value", f"{column} is empty")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 3.0 in a column that pandas widened because of a null
    if not isinstance(value, str | int | float):
        raise Unusable("missing_value", f"{column} is a {type(value).__name__}, expected a text or a number")
    text = _IMAGE_TOKEN.sub(" ", str(value)).strip()
    if not text:
        raise Unusable("missing_value", f"{column} is blank")
    return text


def slots_of(value: Any) -> int:
    """How many `<image>` placeholders a text has."""
    return len(_IMAGE_TOKEN.findall(value)) if isinstance(value, str) else 0


def answer_of(value: Any, column: str) -> Any:
    """The answer cell; of a list of annotators' answers the most frequent one, the first among equals."""
    if isinstance(value, dict):
        return answer_of(value.get("answer", value.get("text")), column)
    if isinstance(value, list | tuple):
        answers = [answer for item in value if not is_missing(answer := answer_of(item, column))]
        return Counter(answers).most_common(1)[0][0] if answers else None
    return value


def box_of(value: Any) -> Any:
    """The answer cell of a box question: a list of four numbers as its text "[x0, y0, x1, y1]", else as it is."""
    if isinstance(value, list | tuple) and len(value) == 4 and all(type(item) in (int, float) for item in value):
        return f"[{', '.join(f'{item:.12g}' for item in value)}]"
    return value


def aliases_of(value: Any) -> list[str]:
    """Further right answers: a text, or a list as `answer_of` takes it, without what is empty."""
    if isinstance(value, str) or is_missing(value):
        value = [value]
    found = (answer_of(item, "") for item in (value if isinstance(value, list | tuple) else [value]))
    return [str(answer).strip() for answer in found if not is_missing(answer) and str(answer).strip()]


def choices_of(value: Any, column: str) -> list[str]:
    """The options: a list, a JSON list, {"text": [...]}, or {"A": ..., "B": ...}; empty where there are none.

    Raises:
        Unusable: bad_choices where they are not 2 to 26 different texts.
    """
    if is_missing(value):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Unusable("bad_choices", f"{column} is the text {value[:80]!r}, expected a list") from error
    if isinstance(value, dict):
        value = value["text"] if isinstance(value.get("text"), list) else [value[key] for key in sorted(value)]
        value = [item for item in value if not is_missing(item)]  # Parquet fills absent keys with nulls
    if not isinstance(value, list | tuple) or any(is_missing(item) for item in value):
        raise Unusable("bad_choices", f"{column} is {value!r:.120}, expected a list of texts")
    choices = [text_of(item, column) for item in value]
    if not choices:
        return []
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise Unusable("bad_choices", f"{len(choices)} options, expected 2 to {len(ascii_uppercase)}")
    if len({" ".join(tokens(choice)) for choice in choices}) < len(choices):
        raise Unusable("bad_choices", f"two options of {choices!r:.160} are the same up to case and punctuation")
    return choices


def letter_of(answer: Any, choices: list[str], column: str) -> str:
    """The letter of the right option: given as letter, as option text, or (an integer) as position from 0.

    Raises:
        Unusable: bad_choices where it is none of these, or means one option as text and another as position.
    """
    letters = ascii_uppercase[: len(choices)]
    text = text_of(answer, column)
    normal = " ".join(tokens(text))
    by_text = next((i for i, choice in enumerate(choices) if " ".join(tokens(choice)) == normal), None)
    by_letter = letters.find(stripped) if len(stripped := text.strip("(). ").upper()) == 1 else -1
    is_position = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices)
    found = {i for i in (by_text, by_letter, answer if is_position else None) if i is not None and i >= 0}
    if len(found) == 1:
        return letters[found.pop()]
    problem = "means different options as letter, text or position" if found else f"is no option of {letters}"
    raise Unusable("bad_choices", f"{column} {answer!r:.80} {problem}; options {choices!r:.160}")


def conversation_of(value: Any, column: str) -> tuple[str, str, int]:
    """Question, answer and placeholders of a LLaVA conversation: the first human turn and the first answer after it.

    Turns are {"from": "human"|"gpt", "value": ...} or {"role": "user"|"assistant", "content": ...},
    content a text or a list of parts; the list may be JSON text.

    Raises:
        Unusable: missing_value where there are no such turns.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Unusable("missing_value", f"{column} is no JSON list: {error}") from error
    question: Any = None
    for turn in value if isinstance(value, list | tuple) else ():
        if not isinstance(turn, dict):
            continue
        role = turn.get("from", turn.get("role"))
        if question is None and role in _USER:
            question = _content(turn)
        elif question is not None and role in _ASSISTANT:
            answer = text_of(_content(turn), f"{column}: the answer")
            return text_of(question, f"{column}: the human turn"), answer, slots_of(question)
    raise Unusable("missing_value", f"{column} has no human turn followed by an answer")


def spoken_by(role: Literal["user", "assistant"], value: Any, column: str) -> Any:
    """The text of the one turn of a role where the cell is a conversation (as TRL's prompt, chosen and rejected are).

    Any other cell is given back as it is. The turns of other roles are left out.

    Raises:
        Unusable: missing_value where the role has no turn, or several: what was answered would not be certain.
    """
    if not (isinstance(value, list | tuple) and value and all(isinstance(t, dict) and "role" in t for t in value)):
        return value
    turns = [turn for turn in value if turn["role"] == role]
    if len(turns) != 1:
        raise Unusable("missing_value", f"{column} has {len(turns)} turns of the {role}, expected one")
    return _content(turns[0])


def meta_of(value: Any) -> str:
    """The meta cell as a JSON object: given as one, as JSON text, or absent.

    Raises:
        Unusable: missing_value where it is something else.
    """
    if is_missing(value):
        return "{}"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Unusable("missing_value", f"meta is no JSON object: {error}") from error
    if not isinstance(value, dict):
        raise Unusable("missing_value", f"meta is a {type(value).__name__}, expected a JSON object")
    return json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)


def _content(turn: dict[str, Any]) -> Any:
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list | tuple):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(part for part in parts if isinstance(part, str) and part)
    return content
