"""One GRPO step against TRL's GRPOTrainer: sampling, scoring under the reference, update, and the whole.

Both sides start from question texts and picture files and end with updated weights. Ours reports a whole step as the
sum of its phases; TRL's whole step runs from one `on_step_end` to the next.
"""

from __future__ import annotations

from functools import reduce
from itertools import product
from operator import add
from typing import Any

from benchmarks import limits
from benchmarks.harness import Record, record
from benchmarks.models import Question, questions
from benchmarks.sides import Measured, Point, compare

PROMPTS = 2
GRID = {"group": (4, 8), "image_tokens": (64, 256, 576), "completion_tokens": (8, 32, 128), "beta": (0.0, 0.04)}
QUICK = {"group": (8,), "image_tokens": (64, 256), "completion_tokens": (8, 32), "beta": (0.04,)}


def run(quick: bool, repeats: int) -> list[Record]:
    """Records of every grid point."""
    from benchmarks import ours, trl_sides

    records = []
    for point in grid(QUICK if quick else GRID):
        records += _records(point, *compare(point, repeats, ours.grpo, trl_sides.grpo), repeats)
    return records


def grid(axes: dict[str, tuple[Any, ...]]) -> list[Point]:
    """All combinations."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def step_questions(point: Point, step: int) -> list[Question]:
    """A step's questions; no step has those of another."""
    return questions(PROMPTS, point["image_tokens"], seed=step)


def _records(point: Point, ours: Measured, peer: Measured, repeats: int) -> list[Record]:
    for step in peer.steps:
        step["scoring"] = step.pop("generating and scoring") - step["sampling"]
        step["update"] = step["whole"] - step["scoring"] - step["sampling"]
    needed = limits.grpo(point, PROMPTS)
    phases = {"sampling": ("sampling",), "scoring+update": ("scoring", "update"), "update": ("update",)}
    if point["beta"]:
        phases["scoring"] = ("scoring",)
    phases["whole"] = ("sampling", "scoring", "update")
    return [
        record(
            f"grpo/{name}",
            point,
            ours.median(*parts),
            "GRPOTrainer",
            peer.median(*parts),
            package="trl",
            repeats=repeats,
            peaks=(ours.peak_mib, peer.peak_mib) if name == "whole" else None,
            **limits.keys(reduce(add, (needed[part] for part in parts))),
        )
        for name, parts in phases.items()
    ]
