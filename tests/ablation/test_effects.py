"""Main effects and interactions on hand-made counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mbpo_core.ablation.effects import effect_rows, interactions, main_effects
from mbpo_core.ablation.pareto import front
from mbpo_core.ablation.publish import publish_results
from tests.ablation.making import grid, results

METRIC = "prior_conflict_accuracy"
TWO = {"negatives": ["adversarial", "noise"], "gain": ["top", "none"]}
RIGHT = {
    "base": [10, 10],
    "adversarial.top": [60, 62],
    "adversarial.none": [50, 50],
    "noise.top": [40, 44],
    "noise.none": [20, 24],
}


def test_main_effect_is_the_mean_over_the_other_factors() -> None:
    negatives, gain = main_effects(results(grid(TWO), RIGHT), METRIC)
    assert (negatives.factor, negatives.contexts, gain.factor) == ("negatives", 2, "gain")
    # Seed means at adversarial: (60 + 50) / 2 and (62 + 50) / 2; at noise: 30 and 34.
    assert negatives.levels["adversarial"].value == pytest.approx(0.555)
    assert negatives.levels["noise"].value == pytest.approx(0.32)
    assert list(negatives.differences) == ["noise"]
    assert negatives.differences["noise"].value == pytest.approx(-0.235)
    # Seed differences -0.25 and -0.22: t(1) = 12.706 standard errors of 0.03 / 2.
    assert negatives.differences["noise"].low == pytest.approx(-0.235 - 12.706 * 0.015, abs=1e-4)
    assert negatives.differences["noise"].high == pytest.approx(-0.235 + 12.706 * 0.015, abs=1e-4)
    assert gain.differences["none"].value == pytest.approx((50 + 20 + 50 + 24 - 60 - 40 - 62 - 44) / 400)


def test_effects_are_written_in_percent_with_their_intervals(tmp_path: Path) -> None:
    found = results(grid(TWO), RIGHT)
    publish_results(found, tmp_path / "out", [])
    rows = json.loads((tmp_path / "out" / "effects.json").read_text(encoding="utf-8"))
    assert rows == effect_rows(found)
    first, noise = [row for row in rows if (row["factor"], row["metric"]) == ("negatives", METRIC)]
    assert (first["level"], first["mean"], first["difference"]) == ("adversarial", 55.5, None)
    assert noise["testbed"] == found.testbed
    assert (noise["level"], noise["mean"], noise["contexts"], noise["seeds"]) == ("noise", 32.0, 2, 2)
    assert [noise[name] for name in ("difference", "difference_low", "difference_high")] == pytest.approx(
        [-23.5, -23.5 - 12.706 * 1.5, -23.5 + 12.706 * 1.5], abs=0.01
    )
    alone = results(grid(TWO, seeds=1), {cell: counts[:1] for cell, counts in RIGHT.items()})
    assert {(row["low"], row["difference_low"]) for row in effect_rows(alone)} == {(None, None)}


def test_only_contexts_with_every_level_count() -> None:
    """A level must not look better because its bad combinations were left out."""
    asked = grid(TWO, exclude=[{"negatives": "noise", "gain": "none"}])
    right = {cell: counts for cell, counts in RIGHT.items() if cell != "noise.none"}
    negatives, gain = main_effects(results(asked, right), METRIC)
    assert negatives.contexts == gain.contexts == 1
    assert negatives.levels["adversarial"].value == pytest.approx(0.61)
    assert gain.levels["top"].value == pytest.approx(0.61)
    assert list(interactions(results(asked, right), METRIC)) == []


def test_a_factor_without_a_full_context_has_no_effect() -> None:
    asked = grid(TWO, cells=[{}, {"negatives": "noise", "gain": "none"}])
    right = {"base": [1, 1], "default": [5, 5], "negatives-noise.gain-none": [6, 6]}
    assert main_effects(results(asked, right), METRIC) == []


def test_swept_factors_have_an_effect_at_the_first_levels_of_the_others() -> None:
    asked = grid(TWO | {"steps": ["10", "3"]}, product=["negatives", "gain"], sweep=["steps"])
    effects = main_effects(results(asked, RIGHT | {"adversarial.top.steps-3": [30, 32]}), METRIC)
    steps = {effect.factor: effect for effect in effects}["steps"]
    assert (steps.contexts, steps.differences["3"].value) == (1, pytest.approx(-0.3))
    assert {effect.factor: effect for effect in effects}["negatives"].contexts == 2


def test_one_seed_has_no_interval() -> None:
    asked = grid(TWO, seeds=1)
    effect = main_effects(results(asked, {cell: counts[:1] for cell, counts in RIGHT.items()}), METRIC)[0]
    assert effect.levels["noise"].value == pytest.approx(0.3)
    assert effect.levels["noise"].low is None


def test_interaction_is_a_mean_a_combination() -> None:
    [(one, other, means)] = interactions(results(grid(TWO), RIGHT), METRIC)
    assert (one, other) == ("negatives", "gain")
    assert {pair: round(found.value, 6) for pair, found in means.items()} == {
        ("adversarial", "top"): 0.61, ("adversarial", "none"): 0.5, ("noise", "top"): 0.42, ("noise", "none"): 0.22,
    }  # fmt: skip


def test_front_is_what_none_beats_from_left_to_right() -> None:
    points = {"a": (1.0, 5.0), "b": (2.0, 4.0), "c": (1.5, 4.0), "d": (2.0, 4.0), "e": (3.0, 1.0), "f": (2.9, 1.0)}
    assert front(points) == ["a", "b", "d", "e"]
