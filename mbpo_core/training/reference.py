"""Log-probs of a round's groups under the frozen reference, computed once before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import torch

from mbpo_core.prefetch import ahead
from mbpo_core.training.data import GroupSet
from mbpo_core.training.scorer import Scorer
from mbpo_core.training.world import World

_FORWARD_GROUPS = 16


def add_reference_logprobs(groups: GroupSet, indices: Sequence[int], reference: Scorer, world: World) -> None:
    """Score groups under the reference and keep the result beside them.

    Every process scores its share; the shares are summed, so that every process knows all.

    Args:
        groups: the round's groups; changed in place.
        indices: which of them; groups that are never trained on need no score.
        reference: the base model, frozen.
        world: the processes that share the work.
    """
    order = sorted(indices, key=lambda index: groups.bare(index).temperature)
    ends = list(accumulate(sum(groups.lengths(index)) for index in order))
    starts = dict(zip(order, [0, *ends], strict=False))
    flat = torch.zeros(ends[-1] if ends else 0)
    # Neighbours stay together: a process reads only the row groups of its own share.
    mine = order[world.rank * len(order) // world.size : (world.rank + 1) * len(order) // world.size]
    with ahead(_batches(groups, mine), lambda part: [groups[index] for index in part]) as loaded:
        for part, ready in zip(_batches(groups, mine), loaded, strict=True):
            with torch.no_grad():
                rows = iter(reference(ready, ready[0].temperature).cpu())
            for index in part:
                values = torch.cat([next(rows)[:length] for length in groups.lengths(index)])
                flat[starts[index] : starts[index] + len(values)] = values
    values = world.sum(flat)
    for index in order:
        groups.set_reference(index, values[starts[index] : starts[index] + sum(groups.lengths(index))].tolist())


def _batches(groups: GroupSet, indices: Sequence[int]) -> Iterator[list[int]]:
    """Groups of one temperature that are scored together."""
    for _, same in groupby(indices, key=lambda index: groups.bare(index).temperature):
        share = list(same)
        for start in range(0, len(share), _FORWARD_GROUPS):
            yield share[start : start + _FORWARD_GROUPS]
