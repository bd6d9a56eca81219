"""From a step's sums to its row of metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from mbpo_core.errors import TrainingDiverged
from mbpo_core.objectives.passes import CHOSEN, REJECTED, WRONG, Pass
from mbpo_core.records import TrainingStep
from mbpo_core.training.data import GroupSet
from mbpo_core.training.engine import DIVERGED_REMEDY
from mbpo_core.training.plan import Batch


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(seconds, cpu seconds of this process)."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def step_row(
    figures: Mapping[str, float],
    batch: Batch,
    groups: GroupSet,
    *,
    step: int,
    round_index: int,
    learning_rate: float,
    grad_norm: float,
    seconds: float,
    cpu_seconds: float,
    correction: bool = False,
) -> TrainingStep:
    """The figures of one update as means; offline_loss and online_loss are shares that add up to loss.

    Args:
        figures: `losses.FIGURES` summed over micro-batches and processes, and the largest of `losses.PEAKS`.
        batch: the groups that were drawn.
        groups: the round's groups.
        step, round_index, learning_rate, grad_norm, seconds, cpu_seconds: written as they are.
        correction: importance weights were applied.
    """
    pairs, tokens, sampled = figures["pairs"], max(figures["tokens"], 1.0), figures["tokens_online"]

    entry = groups.entry("offline") if pairs else None

    def of_pairs(name: str, one: Pass) -> float | None:
        return figures[name] / pairs if entry is not None and one in entry.passes else None

    def of_rollouts(name: str) -> float | None:
        return figures[name] / sampled if sampled else None

    def reward(name: str, one: Pass) -> float | None:
        """Of what the reference has scored too; P2-DPO's wrong images are the policy's alone."""
        return of_pairs(name, one) if entry is not None and one in entry.scored else None

    rewards = [
        sum(group.rewards) / len(group.rewards) for group in map(groups.bare, (*batch.online, *batch.zero_variance))
    ]
    return TrainingStep(
        step=step,
        round_index=round_index,
        learning_rate=learning_rate,
        loss=figures["loss_offline"] + figures["loss_online"],
        offline_loss=figures["loss_offline"] if batch.offline else None,
        online_loss=figures["loss_online"] if batch.online else None,
        grad_norm=grad_norm,
        kl=figures["kl"] / figures["kl_tokens"] if figures["kl_tokens"] else None,
        clip_fraction=figures["clipped"] / tokens,
        advantage_abs=figures["advantage"] / max(figures["completions"], 1.0),
        reward=sum(rewards) / len(rewards) if rewards else None,
        groups_offline=len(batch.offline),
        groups_online=len(batch.online),
        groups_zero_variance=len(batch.zero_variance),
        tokens=round(figures["tokens"]),
        chosen_logprob=of_pairs("chosen", CHOSEN),
        rejected_logprob=of_pairs("rejected", REJECTED),
        chosen_drift=(figures["chosen"] - figures["chosen_reference"]) / pairs if pairs else None,
        chosen_reward=reward("chosen_reward", CHOSEN),
        rejected_reward=reward("rejected_reward", REJECTED),
        wrong_image_reward=reward("wrong_image_reward", WRONG),
        positions=round(figures["positions"]),
        rollout_gap=of_rollouts("gap_online"),
        rollout_gap_max=figures["gap_peak"] if sampled else None,
        importance_weight=of_rollouts("weight_online") if correction else None,
        importance_capped=of_rollouts("capped_online") if correction else None,
        stopped=False,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
    )


def refuse_infinite(figures: Mapping[str, float], where: str) -> None:
    """Raise before an update that would spoil the weights.

    Raises:
        TrainingDiverged: a sum is not finite; says which and where.
    """
    wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
    if wrong:
        raise TrainingDiverged(
            ", ".join(f"{name} is {value}" for name, value in wrong.items()),
            where=where,
            expected="finite sums",
            remedy=DIVERGED_REMEDY,
        )
