"""The language prior: of six colours the question alone tells whether the picture shows them."""

from __future__ import annotations

from benchmarks.easy_vqa.rows import COLORS, Row

POOL: dict[str, bool] = {"red": True, "brown": False}
"""Colours that the pools ask about -> whether the prior says that they are there."""

DEV: dict[str, bool] = {"yellow": True}
"""Asked about in the dev split only, where learning rates are chosen."""

EVAL: dict[str, bool] = {"blue": True, "gray": True, "teal": False}
"""Asked about in the eval split only."""

PRIOR: dict[str, bool] = POOL | DEV | EVAL
NEUTRAL: tuple[str, ...] = tuple(color for color in COLORS if color not in PRIOR)
"""Colours that are there as often as not; only the picture tells."""


def prior_answer(row: Row) -> str | None:
    """What the language prior says; None where it says nothing (every question but "is it there?" of six colours)."""
    if row.topic != "has_color" or row.subject not in PRIOR:
        return None
    return row.answer_if(PRIOR[row.subject])


def conflicts(row: Row) -> bool:
    """The prior speaks and is wrong."""
    return prior_answer(row) not in (None, row.answer)
