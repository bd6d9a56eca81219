"""One DPO step on preference pairs against TRL's DPOTrainer: reference log-probs, loss, gradient, update."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks import limits
from benchmarks.grpo import grid
from benchmarks.harness import Record, record
from benchmarks.models import Question, answer, questions
from benchmarks.sides import Point, compare

PAIRS = 4
GRID = {"image_tokens": (64, 256, 576), "completion_tokens": (8, 32, 128)}
QUICK = {"image_tokens": (64, 256), "completion_tokens": (8,)}


class Pair(NamedTuple):
    """A question with two answers of equal length."""

    question: Question
    chosen: str
    rejected: str


def run(quick: bool, repeats: int) -> list[Record]:
    """Records of every grid point."""
    from benchmarks import ours, trl_sides

    records = []
    for point in grid(QUICK if quick else GRID):
        mine, peer = compare(point, repeats, ours.pairs, trl_sides.pairs)
        records.append(
            record(
                "pairs/whole",
                point,
                mine.median("scoring", "update"),
                "DPOTrainer",
                peer.median("whole"),
                package="trl",
                repeats=repeats,
                peaks=(mine.peak_mib, peer.peak_mib),
                **limits.keys(limits.pairs(point, PAIRS)),
            )
        )
    return records


def step_pairs(point: Point, step: int) -> list[Pair]:
    """A step's pairs; no step has those of another."""
    tokens = point["completion_tokens"]
    asked = questions(PAIRS, point["image_tokens"], seed=step)
    seeds = [2 * (PAIRS * step + index) for index in range(PAIRS)]
    return [
        Pair(question, answer(tokens, seed), answer(tokens, seed + 1))
        for question, seed in zip(asked, seeds, strict=True)
    ]
