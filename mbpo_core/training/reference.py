"""What the frozen reference makes of a round's groups, computed once before training."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import accumulate, groupby

import torch
from torch import Tensor

from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_argmax
from mbpo_core.objectives.passes import SLIP, WRONG
from mbpo_core.prefetch import ahead
from mbpo_core.training.data import GroupSet
from mbpo_core.training.kept import KeptLogprobs
from mbpo_core.training.looks import Look
from mbpo_core.training.scorer import Scorer
from mbpo_core.training.world import World

_FORWARD_GROUPS = 16


def read_slips(groups: GroupSet, indices: Sequence[int], reference: Policy, world: World) -> None:
    """Read off what the reference would have said at each token of chosen under the rejected images, and keep it.

    POVID's code asks the policy at every step; the reference is asked once, so that the log-probs of what it said can
    be kept beside the pair. In the first steps both are the same model.

    Source: POVID arXiv:2402.11411, stage 2; recipe 3.
    """
    if SLIP not in groups.entry("offline").passes:
        return
    order = list(indices)
    lengths = [groups.lengths(index)[0] for index in order]
    shared = Shared(order, lengths, world)
    with ahead(_batches(groups, shared.mine), lambda part: groups.looks(part, [WRONG])[0]) as loaded:
        for part, look in zip(_batches(groups, shared.mine), loaded, strict=True):
            for index, (tokens,) in zip(part, group_argmax(reference, look.groups), strict=True):
                shared.put(index, torch.tensor(tokens, dtype=torch.float64))
    for index, values in shared.all():
        groups.set_slips(index, values.round().long().tolist())


def add_reference_logprobs(
    groups: GroupSet,
    indices: Sequence[int],
    reference: Scorer,
    world: World,
    *,
    second: bool = False,
    kept: KeptLogprobs | None = None,
) -> None:
    """Score groups under a reference and keep the result beside them.

    Args:
        groups: the round's groups; changed in place.
        indices: which of them; groups that are never trained on need no score.
        reference: frozen.
        world: the processes that share the work.
        second: whether it is the second reference, which sees pairs only.
        kept: read in place of scoring, and added to; None scores everything.
    """
    for index, values in _all_scored(groups, indices, reference, world, kept):
        groups.set_reference(index, values.tolist(), second=second)


def add_start_logprobs(groups: GroupSet, indices: Sequence[int], policy: Scorer, world: World) -> None:
    """Score rollout groups under the policy before its first update, and keep the result beside them.

    A round that is gone on with scores them again under the same weights: those it starts from, not those it reached.
    """
    for index, values in _all_scored(groups, indices, policy, world, None):
        groups.set_start(index, values.tolist())


def _all_scored(
    groups: GroupSet, indices: Sequence[int], scorer: Scorer, world: World, kept: KeptLogprobs | None
) -> Iterator[tuple[int, Tensor]]:
    """All log-probs of each group, completion after completion; every process has its share, and gets those of all."""
    order = sorted(indices, key=groups.kind)
    shared = Shared(order, [_tokens(groups, index) for index in order], world)
    parts = list(_batches(groups, shared.mine))
    names = [[groups.fingerprint(index) for index in part] if kept else [] for part in parts]
    found = kept.find(names) if kept else [None] * len(parts)
    missing = [part for part, values in zip(parts, found, strict=True) if values is None]
    with closing(_scored(groups, missing, scorer)) as scored:
        for part, name, values in zip(parts, names, found, strict=True):
            values = values or next(scored)
            for index, logprobs in zip(part, values, strict=True):
                shared.put(index, torch.tensor(logprobs))
            if kept:
                kept.put(name, values)
    if kept:
        kept.save()
    yield from shared.all()


def _scored(
    groups: GroupSet, parts: Sequence[Sequence[int]], scorer: Scorer
) -> Generator[list[list[float]], None, None]:
    """Log-probs of each part's groups, of all tokens of all passes in their order."""
    with ahead(iter(parts), lambda part: _looks(groups, part)) as loaded:
        for part, looks in zip(parts, loaded, strict=True):
            with torch.no_grad():
                scored = scorer(looks, looks[0].groups[0].temperature)
            rows = [iter(one.logprobs.cpu()) for one in scored]
            yield [
                torch.cat(
                    [_values(look, place, next_rows) for look, next_rows in zip(looks, rows, strict=True)]
                ).tolist()
                for place in range(len(part))
            ]


class Shared:
    """Numbers of many groups, of which every process makes its share and in the end has all.

    Neighbours stay together: a process reads only the row groups of its own share.

    Args:
        order: the groups.
        lengths: numbers of each.
        world: the processes.
    """

    def __init__(self, order: Sequence[int], lengths: Sequence[int], world: World) -> None:
        ends = list(accumulate(lengths))
        self._place = {index: slice(end - length, end) for index, end, length in zip(order, ends, lengths, strict=True)}
        self._flat = torch.zeros(ends[-1] if ends else 0, dtype=torch.float64)
        self._world = world
        self.mine = order[world.rank * len(order) // world.size : (world.rank + 1) * len(order) // world.size]

    def put(self, index: int, values: Tensor) -> None:
        """Keep a group's numbers."""
        self._flat[self._place[index]] = values.double()

    def all(self) -> Iterator[tuple[int, Tensor]]:
        """Every group's numbers; a collective operation."""
        whole = self._world.sum(self._flat)
        return ((index, whole[place]) for index, place in self._place.items())


def _tokens(groups: GroupSet, index: int) -> int:
    lengths, (_, source) = groups.lengths(index), groups.kind(index)
    if source == "online":
        return sum(lengths)
    return sum(lengths[one.side == "rejected"] for one in groups.entry("offline").scored)


def _looks(groups: GroupSet, part: Sequence[int]) -> list[Look]:
    return groups.looks(part, groups.entry(groups.kind(part[0])[1]).scored)


def _values(look: Look, place: int, rows: Iterator[Tensor]) -> Tensor:
    """A group's numbers of one look, completion after completion."""
    return torch.cat([next(rows)[: len(tokens)] for tokens in look.groups[place].completions])


def _batches(groups: GroupSet, indices: Sequence[int]) -> Iterator[list[int]]:
    """Groups of one source and temperature that are scored together."""
    for _, same in groupby(indices, key=groups.kind):
        share = list(same)
        for start in range(0, len(share), _FORWARD_GROUPS):
            yield share[start : start + _FORWARD_GROUPS]
