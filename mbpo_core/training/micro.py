"""Groups of one source as tensors, ready for the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mbpo_core.config import TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.chip import segment_weights
from mbpo_core.objectives.passes import Pass, Side
from mbpo_core.training.data import GroupSet
from mbpo_core.training.looks import Look
from mbpo_core.training.plan import TOKEN_LOSSES, GroupWeights
from mbpo_core.training.scorer import pad


@dataclass(frozen=True)
class MicroBatch:
    """P groups of one source that go through the model together.

    The first look is at the clean images; its B completions of at most T tokens are what group objectives weigh.

    Attributes:
        looks: what goes through the model; those without gradient too.
        advantages: (B,); zero where the objective does not look at rewards.
        weights: (B,) u_i of the step.
        mask: (B, T) bool, from lengths.
        counted: (B, T) bool, mask without the rows that only keep processes in step.
        group_weights: (P,) a group's share of the step.
        pairs_counted: (P,) bool.
        masks: (P, T) bool by side, offline only.
        reference: (P, T) nats by pass ((B, T) online); None where nothing depends on it (`plan.needs_reference`).
        second: likewise, of the second reference.
        first_reference: (B, T) nats, of the first look's completions.
        segments: (P, T) by side, CHiP's token weights.
        rollout: (B, T) nats, online only: recorded when the tokens were sampled.
        start: (B, T) nats, online only: under the policy as the round began; None where nothing is corrected by it.
        positions: token positions run forward and backward.
    """

    source: Literal["offline", "online"]
    looks: Sequence[Look]
    advantages: Tensor
    weights: Tensor
    mask: Tensor
    counted: Tensor
    group_weights: Tensor
    pairs_counted: Tensor
    masks: Mapping[Side, Tensor] = field(default_factory=dict)
    reference: Mapping[Pass, Tensor] | None = None
    second: Mapping[Pass, Tensor] | None = None
    first_reference: Tensor | None = None
    segments: Mapping[Side, Tensor] = field(default_factory=dict)
    rollout: Tensor | None = None
    start: Tensor | None = None
    positions: int = 0

    @property
    def temperature(self) -> float:
        return self.looks[0].groups[0].temperature

    def by_pass(self, rows: Sequence[Tensor]) -> dict[Pass, Tensor]:
        """Tensors (B, T), one a look, by pass; pairs cut to their side's longest."""
        cut: dict[Pass, Tensor] = {}
        for look, values in zip(self.looks, rows, strict=True):
            for one, several in look.by_pass(values).items():
                cut[one] = several[:, : self.masks[one.side].shape[1]] if one.side in self.masks else several
        return cut

    def to(self, device: torch.device) -> MicroBatch:
        """The same with its tensors on a device; pictures move when they are encoded."""
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
            elif isinstance(value, dict):
                moved[name] = {key: one.to(device) for key, one in value.items()}
        return replace(self, **moved)


def collate(
    part: Sequence[tuple[int, bool]], groups: GroupSet, weights: Mapping[int, GroupWeights], config: TrainingConfig
) -> MicroBatch:
    """Tensors of a micro-batch on the CPU, because another thread may make them.

    Args:
        part: indices of groups of one source and temperature; False where a group is there only because
            another process has one more to do.
        groups: the round's groups, with reference log-probs.
        weights: of the batch's groups, by index (`plan.batch_weights`).
        config: what the loss looks at.
    """
    indices = [index for index, _ in part]
    _, source = groups.kind(indices[0])
    entry = groups.entry(source)
    looks = [*groups.looks(indices, entry.passes, grad=True), *groups.looks(indices, entry.fixed)]
    shown = looks[0].groups
    flags = torch.tensor([flag for _, flag in part])
    mask = _mask([len(tokens) for group in shown for tokens in group.completions])
    per_row = torch.tensor([flag for group, (_, flag) in zip(shown, part, strict=True) for _ in group.completions])
    ranked = source == "online" or config.objective == "grpo"
    weighed = source == "online" or config.objective in TOKEN_LOSSES
    share = torch.tensor([w for index in indices for w in weights[index].completions]) if weighed else _zeros(per_row)
    references = [groups.reference(index) for index in indices]
    second = [groups.reference(index, second=True) for index in indices]
    rollouts = [row for index in indices for row in groups.bare(index).rollout_logprobs or []]
    starts = [row for index in indices for row in groups.start(index)]
    reference = _by_pass(references)
    offline = source == "offline"
    return MicroBatch(
        source=source,
        looks=looks,
        advantages=torch.cat([_advantages(groups.bare(index), config) for index in indices])
        if ranked
        else _zeros(per_row),
        weights=torch.where(per_row, share, torch.zeros_like(share)),
        mask=mask,
        counted=mask & per_row[:, None],
        group_weights=torch.tensor([weights[index].group * flag for index, flag in part]),
        pairs_counted=flags,
        masks=_side_masks(groups, indices, looks) if offline else {},
        reference=reference,
        second=_by_pass(second),
        first_reference=None if reference is None else _interleaved(references, looks[0].passes),
        segments=_segments(groups, indices, config) if config.objective == "chip" and offline else {},
        rollout=None if offline else _padded(rollouts),
        start=_padded(starts) if starts else None,
        positions=sum(
            count
            for look in looks
            if look.grad
            for count, (_, flag) in zip(look.positions(), part, strict=True)
            if flag
        ),
    )


def _advantages(group: PromptGroup, config: TrainingConfig) -> Tensor:
    return group_advantages(torch.tensor([group.rewards]), scale=config.advantage_scale)[0]


def _side_masks(groups: GroupSet, indices: Sequence[int], looks: Sequence[Look]) -> dict[Side, Tensor]:
    sides: set[Side] = {one.side for look in looks for one in look.passes} | {"chosen"}
    if len(groups.lengths(indices[0])) > 1:
        sides.add("rejected")
    return {side: _mask([groups.lengths(index)[side == "rejected"] for index in indices]) for side in sides}


def _segments(groups: GroupSet, indices: Sequence[int], config: TrainingConfig) -> dict[Side, Tensor]:
    pairs = [segment_weights(*groups.bare(index).completions, weight=config.segment_weight) for index in indices]
    return {"chosen": _padded([one for one, _ in pairs]), "rejected": _padded([other for _, other in pairs])}


def _by_pass(references: Sequence[dict[Pass, list[list[float]]] | None]) -> dict[Pass, Tensor] | None:
    known = [one for one in references if one is not None]
    if len(known) < len(references):
        return None
    return {one: _padded([row for reference in known for row in reference[one]]) for one in known[0]}


def _interleaved(references: Sequence[dict[Pass, list[list[float]]] | None], passes: Sequence[Pass]) -> Tensor:
    """Rows in the order of the first look's completions, whose passes the reference has all scored."""
    known = [one for one in references if one is not None]
    return _padded([row for reference in known for one in passes for row in reference[one]])


def _zeros(rows: Tensor) -> Tensor:
    return torch.zeros(len(rows))


def _mask(lengths: Sequence[int]) -> Tensor:
    """(B, T) bool from lengths."""
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    return pad([torch.tensor(row) for row in rows])
