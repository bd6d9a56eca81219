"""The process that math-verify runs in: JSON requests in, JSON replies out, a line each.

Run as a script, by `math_process`; imports nothing of this package. It ends when its input does, and the kernel kills
it when a request has used up its processor time or memory: sympy can hang in one operation that heeds no signal.
"""

from __future__ import annotations

import json
import logging
import math
import re
import resource
import sys
from functools import lru_cache
from typing import Any, TextIO

MEMORY_BYTES = 2 << 30
SHOWN = 200  # characters of an expression

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MARKED = re.compile(r"\$|\\\(|\\\[")
_DENIED = re.compile(r"\b(?:not|isn't|cannot be|can't be)(?: equal to)?\s*(?:\$|\\\(|\\boxed)")
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
_FUNCTIONS = frozenset({"sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi"})


def main() -> None:
    """Answer until the input ends."""
    told, sys.stdout = sys.stdout, sys.stderr  # nothing else may stand between the replies
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    import math_verify  # noqa: F401  # before the first request, whose time is limited

    _tell(told, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _limit(request["cpu_s"])
        _tell(told, answer(request["text"], request["reference"]))


def answer(text: str, reference: str | None) -> dict[str, Any]:
    """What a text gives: extracted and reason; beside a reference also what that gives, and whether they are equal."""
    found, shown, reason = _told(text)
    reply: dict[str, Any] = {"extracted": shown, "reason": reason}
    if reference is not None:
        gold, gold_shown, why = _told(reference)
        equal = gold_shown is not None and shown is not None and _equal(gold, found)
        reply |= {"reference": gold_shown, "reference_reason": why, "equal": equal}
    return reply


def _told(text: str) -> tuple[list[Any], str | None, str]:
    """`read`, what was read in words, and why there is nothing; whatever sympy raises, the text is at fault."""
    try:
        found, reason = read(text)
        return found, _shown(found[0]) if found else None, reason
    except Exception as error:
        return [], None, f"{type(error).__name__}: {error}"[:SHOWN]


@lru_cache(maxsize=256)
def read(text: str) -> tuple[list[Any], str]:
    """The one expression of a text, as a list of one, or an empty list and why.

    What stands in \\boxed{...} counts, and several boxes must be equal. Else a text that is an expression as a whole;
    else what math-verify finds: LaTeX after "the answer is", or the last LaTeX or arithmetic there is. Alternatives
    ("$3$ or $4$") are a set.
    """
    boxes = list(dict.fromkeys(boxed(text)))
    if boxes:
        each = [_parse(f"${content}$") for content in boxes]
        if not all(each):
            return [], "a box holds no expression"
        if not all(_equal(each[0], other) for other in each[1:]):
            return [], f"several boxes: {', '.join(boxes)}"[:SHOWN]
        return each[0], "in a box"
    if _DENIED.search(text):
        return [], "an expression is denied"
    if not _MARKED.search(text) and _is_expression(text):
        found = _parse(f"${text.strip().rstrip('.').replace('**', '^')}$")
    else:
        found = _parse(text)
    return found, "in the text" if found else "no expression in the text"


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(text, fallback_mode="no_fallback", parsing_timeout=0))[:1]


def _equal(gold: list[Any], found: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, found, timeout_seconds=0))


def boxed(text: str) -> list[str]:
    """The contents of the outermost boxes, braces balanced; an unfinished box has none."""
    starts = {match.end() for match in _BOXED.finditer(text)}
    found: list[tuple[int, str]] = []
    unfinished: list[tuple[int, int]] = []  # where the contents start, and how deep
    depth = i = 0
    while i < len(text):
        if text[i] == "{":
            depth += 1
            if i + 1 in starts:
                unfinished.append((i + 1, depth))
        elif text[i] == "}":
            if unfinished and unfinished[-1][1] == depth:
                start, _ = unfinished.pop()
                while found and found[-1][0] > start:
                    found.pop()  # it stands inside this one
                found.append((start, text[start:i].strip()))
            depth -= 1
        i += 2 if text[i] == "\\" else 1  # "\\{" is no brace
    return [contents for _, contents in found]


def _is_expression(text: str) -> bool:
    """No prose: no words but LaTeX commands and function names, and something to read."""
    rest = _COMMAND.sub(" ", text)
    return bool(text.strip()) and all(word in _FUNCTIONS for word in _WORD.findall(rest))


def _shown(expression: Any) -> str:
    text = str(expression)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _limit(seconds: float) -> None:
    """Let the kernel end this process once it has used so much more processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _tell(stream: TextIO, reply: dict[str, Any]) -> None:
    stream.write(json.dumps(reply) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
