"""Which groups each step sees: drawn up in full before the first step, from the seed alone.

The position in this list is the whole state of the data: a resumed run goes on at the same entry.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from mbpo_core.config import TrainingConfig
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.seeds import derive_seed
from mbpo_core.training.data import GroupSet, Source

TOKEN_LOSSES = ("grpo", "sft")
"""Objectives on pairs that weigh tokens; the others have one loss a pair."""

_IDLE = 1000
"""Batches in a row without a group to train on after which a budget is given up."""


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
    """Whether training reads pairs."""
    return config.objective != "none"


def wants_online(config: TrainingConfig) -> bool:
    """Whether training reads rollouts."""
    return config.use_online


def needs_reference(config: TrainingConfig) -> bool:
    """Whether training looks at the reference: all but online groups alone, without KL term and floor."""
    return wants_offline(config) or config.beta > 0 or config.max_drop > 0


def plan_batches(
    groups: GroupSet,
    offline: Sequence[int],
    online: Sequence[int],
    config: TrainingConfig,
    seed: int,
    round_index: int,
    *,
    rounds: int = 1,
    entropies: Mapping[int, float] | None = None,
) -> list[Batch]:
    """All batches of a round, epoch after epoch.

    An epoch has as many batches as the longer of the two streams needs; the other is spread evenly over them,
    so that offline and online groups are mixed to the end and no batch is a small remainder.

    With entropies there are three stages of as many epochs each: the third of the pairs with the least entropy, then
    the next (MFPO's easy to hard). With a token budget each stage has its share of the round's share, and goes on for
    as many epochs as it takes; the batch that crosses the line is its last.

    Args:
        groups: the round's groups.
        offline, online: indices of the groups to train on.
        config: pairs_per_step, groups_per_step, epochs, token_budget, inner_steps.
        seed, round_index: what the order derives from.
        rounds: over which the budget is spread.
        entropies: of each pair, nats; None for one stage.

    Source: MFPO arXiv:2410.15334, recipe 2.6, for the stages.
    """
    stages = _terciles(offline, entropies)
    budget = config.token_budget
    share = budget * (round_index + 1) // rounds - budget * round_index // rounds
    batches: list[Batch] = []
    for number, pairs in enumerate(stages):
        drawn = _chunk(online, number, len(stages))
        name = () if len(stages) == 1 else (number,)
        endless = _epochs(groups, pairs, drawn, config, (seed, "training"), (round_index, *name))
        if not budget:
            batches += [batch for epoch in islice(endless, config.epochs) for batch in epoch]
        elif pairs or drawn:
            limit = share * (number + 1) // len(stages) - share * number // len(stages)
            batches += _until(limit, (batch for epoch in endless for batch in epoch), groups, config.inner_steps)
    return batches


def _epochs(
    groups: GroupSet,
    offline: Sequence[int],
    online: Sequence[int],
    config: TrainingConfig,
    root: tuple[int, str],
    place: tuple[int, ...],
) -> Iterator[list[Batch]]:
    """One epoch after the other, without end."""
    count = max(math.ceil(len(offline) / config.pairs_per_step), math.ceil(len(online) / config.groups_per_step))
    for epoch in itertools.count():
        pairs, drawn = list(offline), list(online)
        for name, stream in (("offline", pairs), ("online", drawn)):
            random.Random(derive_seed(*root, name, *place, epoch)).shuffle(stream)
        yield [_batch(groups, _chunk(pairs, number, count), _chunk(drawn, number, count)) for number in range(count)]


def _batch(groups: GroupSet, pairs: Sequence[int], drawn: Sequence[int]) -> Batch:
    return Batch(
        offline=tuple(pairs),
        online=tuple(index for index in drawn if groups.trains(index)),
        zero_variance=tuple(index for index in drawn if not groups.trains(index)),
    )


def _until(limit: int, batches: Iterator[Batch], groups: GroupSet, updates: int) -> Iterator[Batch]:
    """Batches until as many token positions have gone forward and backward, in as many updates on each batch."""
    spent, idle = 0, 0
    while spent < limit and idle < _IDLE:
        batch = next(batches)
        cost = updates * sum(groups.positions(index) for index in (*batch.offline, *batch.online))
        spent, idle = spent + cost, 0 if cost else idle + 1
        yield batch


def _terciles(offline: Sequence[int], entropies: Mapping[int, float] | None) -> list[Sequence[int]]:
    """Pairs in three stages of rising entropy, ties in their own order; all in one without entropies."""
    if entropies is None:
        return [offline]
    ranked = sorted(offline, key=lambda index: entropies[index])
    return [_chunk(ranked, number, 3) for number in range(3)]


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


@dataclass(frozen=True)
class GroupWeights:
    """What a group counts for in its step.

    Attributes:
        group: w_b / W, its share; losses that are one number a pair are multiplied by it.
        completions: u_i, what each token of each completion is multiplied by; empty where pairs are weighed.
    """

    group: float
    completions: list[float]


def batch_weights(groups: GroupSet, batch: Batch, config: TrainingConfig) -> dict[int, GroupWeights]:
    """The weights of a batch's groups; of tokens, see `objectives.completion_weights`.

    Groups whose tokens are weighed share w_b / W among them as the normalisation says; a pair with one loss gets its
    w_b / W whole. Either way the step's loss is a mean over its groups.
    """
    indices = [*batch.offline, *batch.online]
    sizes = {index: _group_weight(groups.kind(index)[1], config) for index in indices}
    total = sum(sizes.values())
    by_token = [index for index in indices if groups.kind(index)[1] == "online" or config.objective in TOKEN_LOSSES]
    share = sum(sizes[index] for index in by_token) / total if total else 0.0
    weights = completion_weights(
        [groups.lengths(index) for index in by_token],
        [sizes[index] for index in by_token],
        config.normalization,
        constant_length=config.constant_length,
    )
    completions = {i: [share * one for one in several] for i, several in zip(by_token, weights, strict=True)}
    return {
        index: GroupWeights(sizes[index] / total if total else 0.0, completions.get(index, [])) for index in indices
    }


def _group_weight(source: Source, config: TrainingConfig) -> float:
    return config.offline_weight if source == "offline" and config.use_online else 1.0


def _chunk(stream: Sequence[int], number: int, count: int) -> Sequence[int]:
    return stream[number * len(stream) // count : (number + 1) * len(stream) // count]
