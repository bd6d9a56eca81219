"""Results of grids from hand-made predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.ablation.costs import Cost
from mbpo_core.ablation.grid import Grid, build_grid
from mbpo_core.ablation.results import Results, summarize_results
from mbpo_core.stage import BASE
from tests.evaluation.rows import prediction

COST = Cost(steps=10, train_tokens=80_000, sampled_tokens=2_500, attack_passes=1_000, cpu_seconds={"training": 3.0})
SETTINGS = {"confidence": 0.95, "bootstrap": 200}


def grid(factors: Mapping[str, Sequence[str]], seeds: int = 2, **fields: Any) -> Grid:
    """A grid of factors whose levels change nothing."""
    plain = {factor: {level: {} for level in levels} for factor, levels in factors.items()}
    given = {"name": "scenes", "config": "demo", "seeds": list(range(seeds)), "factors": plain}
    return build_grid(given | fields, where="test")


def results(asked: Grid, right: Mapping[str, Sequence[int]], probe: str = "prior_conflict", **more: Any) -> Results:
    """Results in which a cell answers so many of 100 questions rightly with each seed.

    Args:
        asked: the grid.
        right: by cell, the base among them, a number a seed.
        probe: of all questions.
        more: `missing`.
    """
    rows = {
        seed: [
            prediction(number, "correct" if number < counts[place] else "wrong", policy=cell, probe=probe)
            for cell, counts in right.items()
            for number in range(100)
        ]
        for place, seed in enumerate(asked.seeds)
    }
    costs = {cell: dict.fromkeys(asked.seeds, COST if cell != BASE else Cost()) for cell in right}
    return summarize_results(asked, rows, costs, SETTINGS, **more)
