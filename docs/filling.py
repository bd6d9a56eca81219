"""Pages whose tables are made from what is recorded elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def filled(page: str, make: Callable[[str], str]) -> str:
    """A page as it is, with everything between `<!-- table NAME -->` and `<!-- end -->` made anew."""
    text = (HERE / page).read_text(encoding="utf-8")
    return re.sub(
        r"<!-- table ([\w -]+) -->\n.*?<!-- end -->",
        lambda block: f"<!-- table {block.group(1)} -->\n{make(block.group(1))}<!-- end -->",
        text,
        flags=re.DOTALL,
    )
