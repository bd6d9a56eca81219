"""Which groups each step sees: drawn up in full before the first step, from the seed alone.

The position in this list is the whole state of the data: a resumed run goes on at the same entry.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.config import TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.seeds import derive_seed
from mbpo_core.training.data import GroupSet


@dataclass(frozen=True)
class Batch:
    """The groups of one step over all processes, by index in the round's `GroupSet`."""

    offline: tuple[int, ...]
    online: tuple[int, ...]
    zero_variance: tuple[int, ...]  # online groups that were drawn and are left out


def deal_pairs(count: int, seed: int, round_index: int, rounds: int) -> list[int]:
    """The round's share of `count` pairs: over all rounds each is dealt exactly once.

    Returns:
        Positions in the pairs table, in a seeded order that is the same in every round.
    """
    order = list(range(count))
    random.Random(derive_seed(seed, "training", "deal")).shuffle(order)
    return order[round_index * count // rounds : (round_index + 1) * count // rounds]


def wants_offline(config: TrainingConfig) -> bool:
    """Whether training reads pairs: the baselines always do."""
    return config.use_offline or config.objective != "mbpo"


def wants_online(config: TrainingConfig) -> bool:
    """Whether training reads rollouts: the baselines never do."""
    return config.use_online and config.objective == "mbpo"


def needs_reference(config: TrainingConfig) -> bool:
    """Whether training looks at the reference: all but online groups alone, without KL term and floor."""
    return wants_offline(config) or config.beta > 0 or config.max_drop > 0


def plan_batches(
    groups: GroupSet, offline: Sequence[int], online: Sequence[int], config: TrainingConfig, seed: int, round_index: int
) -> list[Batch]:
    """All batches of a round, epoch after epoch.

    An epoch has as many batches as the longer of the two streams needs; the other is spread evenly over them,
    so that offline and online groups are mixed to the end and no batch is a small remainder.

    Args:
        groups: the round's groups.
        offline, online: indices of the groups to train on.
        config: pairs_per_step, groups_per_step, epochs.
        seed, round_index: what the order derives from.
    """
    count = max(math.ceil(len(offline) / config.pairs_per_step), math.ceil(len(online) / config.groups_per_step))
    batches = []
    for epoch in range(config.epochs):
        pairs, drawn = list(offline), list(online)
        for name, stream in (("offline", pairs), ("online", drawn)):
            random.Random(derive_seed(seed, "training", name, round_index, epoch)).shuffle(stream)
        for number in range(count):
            draw = _chunk(drawn, number, count)
            batches.append(
                Batch(
                    offline=tuple(_chunk(pairs, number, count)),
                    online=tuple(index for index in draw if groups.trains(index)),
                    zero_variance=tuple(index for index in draw if not groups.trains(index)),
                )
            )
    return batches


def micro_batches(indices: Sequence[int], size: int, rank: int, world: int) -> list[list[tuple[int, bool]]]:
    """One process's share of a batch, cut into forward passes.

    Every process gets equally many: a backward pass is a collective operation. A process whose share is
    shorter repeats the batch's first group with the flag False, which means: weight zero, counted nowhere.

    Args:
        indices: groups of one source, of the whole batch.
        size: groups a forward pass.
        rank, world: which process of how many.
    """
    share = list(indices[rank::world])
    count = math.ceil(math.ceil(len(indices) / world) / size)
    cut = [[(index, True) for index in share[i * size : (i + 1) * size]] for i in range(count)]
    return [part or [(indices[0], False)] for part in cut]


def batch_weights(groups: GroupSet, batch: Batch, config: TrainingConfig) -> dict[int, list[float]]:
    """What each token of each completion of a batch is multiplied by; see `objectives.completion_weights`.

    DPO takes whole sequences, so both sides of each of its P pairs get 1 / P.
    """
    indices = [*batch.offline, *batch.online]
    if config.objective == "dpo":
        return {index: [1 / len(indices)] * 2 for index in indices}
    weights = completion_weights(
        [groups.lengths(index) for index in indices],
        [_group_weight(groups.bare(index), config) for index in indices],
        config.normalization,
        constant_length=config.constant_length,
    )
    return dict(zip(indices, weights, strict=True))


def _group_weight(group: PromptGroup, config: TrainingConfig) -> float:
    return config.offline_weight if group.source == "offline" and config.objective == "mbpo" else 1.0


def _chunk(stream: Sequence[int], number: int, count: int) -> Sequence[int]:
    return stream[number * len(stream) // count : (number + 1) * len(stream) // count]
