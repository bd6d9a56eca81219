"""Implied rewards: margins, bars, balance."""

from __future__ import annotations

from typing import Any

import pytest

from mbpo_core.objectives.reward_balance import reward_balance
from mbpo_core.reports.curves import curves_section
from mbpo_core.reports.margins import margin_charts
from tests.reports.fake_run import fake_run


def step(at: int, chosen: float | None, rejected: float | None, wrong: float | None) -> dict[str, Any]:
    return {"at": at, "chosen_reward": chosen, "rejected_reward": rejected, "wrong_image_reward": wrong}


def test_bars_are_means_of_the_last_ten_steps() -> None:
    """Steps 0-9 are left out; text margin 2 - (-2) = 4, image margin 2 - 1 = 1, and min / max is 1/4."""
    early = [step(at, 9.0, 0.0, 0.0) for at in range(10)]
    late = [step(at, 2.0 + (-1) ** at, -2.0, 1.0) for at in range(10, 20)]
    curves, bars = margin_charts([*early, *late], [])
    assert [name for _, name in curves.legend] == ["text margin", "image margin"]
    assert "text margin: 9 to 3; image margin: 9 to 0" in curves.svg
    assert "text margin: 4; image margin: 1" in bars.svg
    assert bars.note == "means of the last 10 steps; balance min / max 0.25"


def test_sides_that_the_objective_does_not_look_at_have_no_bar() -> None:
    curves, bars = margin_charts([step(0, 1.0, 0.5, None)], [])
    assert [name for _, name in curves.legend] == ["text margin"]
    assert bars.note == "of the last step"
    assert margin_charts([step(0, None, None, None)], []) == []
    assert margin_charts([{"at": 0}], []) == []  # rows from before there were such columns
    (_, image) = margin_charts([step(0, 1.0, None, 3.0)], [])
    assert "image margin: -2" in image.svg


@pytest.mark.parametrize(
    ("text", "image", "expected"),
    [(2.03, 0.35, 0.172), (4.05, 3.80, 0.938), (3.80, 4.05, 0.938), (1.0, -0.5, -0.5), (-1.0, -2.0, None)],
)
def test_balance_of_mfpos_bars(text: float, image: float, expected: float | None) -> None:
    found = reward_balance(text, image)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-3)


def test_no_balance_where_nothing_leads() -> None:
    note = margin_charts([step(0, 0.0, 1.0, 1.0)], [])[1].note
    assert note == "of the last step; no balance, as neither margin is positive"


@pytest.mark.parametrize(
    ("method", "charts"),
    [
        ("mfpo", ["Loss of MFPO", "Log-probability of the pairs", "Implied rewards", "Reward bars"]),
        ("image", ["Loss of Image side alone", "Log-probability of the pairs", "Implied rewards", "Reward bars"]),
        (
            "grpo",
            [
                "Loss of GRPO online",
                "Reward of rollouts",
                "Clip fraction",
                "Entropy of rollouts",
                "KL to the base model",
            ],
        ),
    ],
)
def test_methods_have_the_charts_of_what_they_look_at(method: str, charts: list[str]) -> None:
    section = curves_section(fake_run(12, method=method))
    assert section is not None
    assert [chart.title for chart in section.charts][: len(charts)] == charts
    pairs_only = method != "grpo"
    assert ("about 0" in section.charts[0].note) != pairs_only
    terms = fake_run(12, method="mbpo_counterfactual")  # loss of ratios, and further terms
    assert "about 0" not in curves_section(terms).charts[0].note  # type: ignore[union-attr]
    assert ("online groups" in section.lines[0][1]) != pairs_only
