"""Log-probs of a round's groups under the frozen reference, computed once before training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

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
    offsets, total = {}, 0
    for index in order:
        offsets[index] = total
        total += sum(groups.lengths(index))
    flat = torch.zeros(total)
    for temperature, same in groupby(order[world.rank :: world.size], key=lambda index: groups.bare(index).temperature):
        share = list(same)
        for start in range(0, len(share), _FORWARD_GROUPS):
            part = share[start : start + _FORWARD_GROUPS]
            with torch.no_grad():
                rows = iter(reference([groups[index] for index in part], temperature).cpu())
            for index in part:
                lengths = groups.lengths(index)
                values = torch.cat([next(rows)[:length] for length in lengths])
                flat[offsets[index] : offsets[index] + len(values)] = values
    values = world.sum(flat)
    for index in order:
        lengths = groups.lengths(index)
        pieces = torch.split(values[offsets[index] : offsets[index] + sum(lengths)], lengths)
        groups.set_reference(index, [piece.tolist() for piece in pieces])
