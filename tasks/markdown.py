"""Names of Prefect's pages; the text on them is made with `mbpo_core.markdown`."""

from __future__ import annotations

import re


def page_key(*words: str) -> str:
    """A name for an artifact on Prefect's pages, from any words: only a-z, 0-9 and dashes."""
    return "-".join(part for part in re.split("[^a-z0-9]+", "-".join(["mbpo", *words]).lower()) if part)
