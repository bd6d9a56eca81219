"""Reward balance on numbers worked out by hand."""

from __future__ import annotations

import pytest

from mbpo_core.objectives.reward_balance import reward_balance


@pytest.mark.parametrize(
    ("text", "image", "balance"),
    [(2.0, 1.0, 0.5), (1.0, 2.0, 0.5), (3.0, 3.0, 1.0), (2.0, 0.0, 0.0), (2.0, -1.0, -0.5),
     (0.0, 0.0, None), (-1.0, -2.0, None)],
)  # fmt: skip
def test_smaller_margin_over_larger(text: float, image: float, balance: float | None) -> None:
    assert reward_balance(text, image) == balance
