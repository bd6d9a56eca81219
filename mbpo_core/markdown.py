"""Markdown of names and values that come from data: everything in it is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_SIGNS = re.compile(r"([\\`*_{}\[\]|#~!])")


def escaped(text: object) -> str:
    """One line that shows exactly this text: no markup, no HTML, no table cells of its own."""
    return _SIGNS.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def table(headings: Sequence[str], rows: Iterable[Sequence[Sequence[object]]]) -> str:
    """A Markdown table; each cell is a list of lines."""
    lines = [f"| {' | '.join(map(escaped, headings))} |", "|" + "---|" * len(headings)]
    lines += [f"| {' | '.join('<br>'.join(map(escaped, cell)) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def fenced(text: str) -> str:
    """A block that shows the text as it is, whatever it contains."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
