"""The learning rate of a step."""

from __future__ import annotations

import math

from mbpo_core.config import TrainingConfig


def learning_rate(config: TrainingConfig, optimizer_steps: int, progress: float) -> float:
    """Warm-up over the first optimizer steps, times a decay over the whole run.

        rate = peak * min(1, (k + 1) / warmup_steps) * shape(p)
        shape = 1 (constant),  1 - p (linear),  (1 + cos(pi p)) / 2 (cosine)

    The decay goes by the share of the run that is done, not by a count of steps: how many groups the rollouts
    of a later round will leave to train on is not known while the first is running.

    Args:
        config: peak rate, schedule and warm-up.
        optimizer_steps: k, updates made so far in all rounds.
        progress: p in [0, 1], share of all rounds done.
    """
    warmup = min(1.0, (optimizer_steps + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    shape = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return config.learning_rate * warmup * shape[config.schedule]
