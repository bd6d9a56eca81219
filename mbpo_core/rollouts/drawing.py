"""Which prompts a round asks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mbpo_core.seeds import derive_seed


def draw(sample_ids: Iterable[str], prompts: int, round_index: int, seed: int, spare: int = 0) -> list[int]:
    """Positions of a round's prompts in `sample_ids`, and behind them of those that may stand in.

    All prompts stand in one order that depends on the run's seed and their ids only; round r takes
    the P = min(prompts, N) places r * P ... r * P + P - 1 of it, starting over behind the last. No
    prompt is asked twice before every one was asked once, and a round goes on where the last ended. The order is a
    circle; stand-ins lie opposite the round's places, where neither the rounds before nor those to come are near.

    Args:
        sample_ids: N distinct ids, in any order; streamed, 8 bytes of each are kept while they are ordered.
        prompts: prompts a round, >= 1.
        round_index: r, from 0.
        seed: the run's seed, the same in every round.
        spare: S, stand-ins; of N - P others there may be fewer.
    """
    keys = np.fromiter((derive_seed(seed, "rollouts", "order", sample_id) for sample_id in sample_ids), np.int64)
    order = np.argsort(keys, kind="stable")  # two ids with one key of 63 bits do not happen
    count = min(prompts, len(order))
    others = len(order) - count
    spare = min(spare, others)
    opposite = count + (others - spare) // 2
    places = [*range(count), *range(opposite, opposite + spare)]
    return [int(order[(round_index * count + place) % len(order)]) for place in places]
