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
        try:
            reply = answer(request["text"], request.get("reference"))
        except Exception as error:  # whatever sympy raises: the text is at fault
            reply = {"extracted": None, "reason": f"{type(error).__name__}: {error}"[:SHOWN]}
        _tell(told, reply)


def answer(text: str, reference: str | None) -> dict[str, Any]:
    """What a text gives: extracted and reason; beside a reference also what that gives, and whether they are equal."""
    found, reason = read(text)
    reply: dict[str, Any] = {"extracted": _shown(found[0]) if found else None, "reason": reason}
    if reference is not None:
        gold, why = read(reference)
        reply |= {"reference": _shown(gold[0]) if gold else None, "reference_reason": why}
        reply["equal"] = bool(gold and found) and _equal(gold, found)
    return reply


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
    """The contents of boxes, braces balanced; an unfinished box has none."""
    found = []
    for start in _BOXED.finditer(text):
        depth = 1
        for end in range(start.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found.append(text[start.end() : end].strip())
                break
        if len(found) > 8:
            break
    return found


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
