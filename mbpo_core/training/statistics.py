"""Numbers over all pairs that some objectives need beside a micro-batch's own."""

from __future__ import annotations

import statistics as numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mbpo_core.objectives.passes import BLIND, CHOSEN
from mbpo_core.records import TrainingStep
from mbpo_core.training.data import GroupSet


@dataclass(frozen=True)
class Statistics:
    """What `PairScores` says of all pairs together.

    Attributes:
        shift: mean implied reward of both sides over the steps before; BCO takes it as zero point.
        gain_mean, gain_std: of chosen under the reference over all pairs of the round, nats per token.
    """

    shift: float = 0.0
    gain_mean: float = 0.0
    gain_std: float = 1.0


def reward_shift(rows: Iterable[TrainingStep]) -> float:
    """BCO's running mean of implied rewards, over the steps made so far; 0 before the first.

    TRL's includes the batch at hand. Ours ends before it, so that it is the same on every process and after a resume.

    Source: arXiv:2404.04656, reward shift; MPO arXiv:2411.10442.
    """
    means = [
        (row.chosen_reward + row.rejected_reward) / 2
        for row in rows
        if row.chosen_reward is not None and row.rejected_reward is not None
    ]
    return numbers.fmean(means) if means else 0.0


def reference_gains(groups: GroupSet, indices: Sequence[int]) -> tuple[float, float]:
    """(mean, population std) of the gain of chosen under the reference, nats per token; (0, 1) where none is scored."""
    if not indices or BLIND not in groups.entry("offline").scored:
        return 0.0, 1.0
    gains = []
    for index in indices:
        scored = groups.reference(index)
        assert scored is not None  # every pair that is trained on is scored before
        gains.append(numbers.fmean(scored[CHOSEN][0]) - numbers.fmean(scored[BLIND][0]))
    return numbers.fmean(gains), numbers.pstdev(gains)
