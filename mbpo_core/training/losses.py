"""What one micro-batch adds to the step's loss, and what it adds to the step's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mbpo_core.config import TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.hybrid import HybridLoss, hybrid_loss
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.ratios import offline_old_logprobs
from mbpo_core.objectives.sft import sft_loss
from mbpo_core.training.data import GroupSet
from mbpo_core.training.scorer import pad

FIGURES = (
    "loss_offline",
    "loss_online",
    "kl",
    "kl_tokens",
    "clipped",
    "tokens",
    "advantage",
    "completions",
    "chosen",
    "rejected",
    "chosen_reference",
    "pairs",
    "tokens_online",
    "gap_online",
)
"""Names of the sums that `micro_loss` returns; each adds up over micro-batches and processes."""


@dataclass(frozen=True)
class MicroBatch:
    """Groups of one source that go through the model together; B completions of at most T tokens."""

    source: Literal["offline", "online"]
    groups: Sequence[PromptGroup]
    advantages: Tensor  # (B,)
    weights: Tensor  # (B,) u_i of the step
    mask: Tensor  # (B, T) bool, from lengths
    counted: Tensor  # (B, T) bool, mask without the rows that only keep processes in step
    reference: Tensor | None  # (B, T) nats; None where nothing depends on it (`plan.needs_reference`)
    rollout: Tensor | None  # (B, T) nats, online only

    @property
    def temperature(self) -> float:
        return self.groups[0].temperature

    def to(self, device: torch.device) -> MicroBatch:
        """The same with its tensors on a device; pictures move when they are encoded."""
        moved: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def collate(
    part: Sequence[tuple[int, bool]],
    groups: GroupSet,
    weights: Mapping[int, list[float]],
    config: TrainingConfig,
) -> MicroBatch:
    """Tensors of a micro-batch on the CPU, because another thread may make them.

    Args:
        part: indices of groups of one source and temperature; False where a group is there only because
            another process has one more to do.
        groups: the round's groups, with reference log-probs.
        weights: of the batch's completions, by group index (`plan.batch_weights`).
        config: whether advantages are scaled.
    """
    taken = [groups[index] for index, _ in part]
    lengths = torch.tensor([length for index, _ in part for length in groups.lengths(index)])
    counted = torch.tensor([flag for index, flag in part for _ in groups.lengths(index)])
    share = torch.tensor([weight for index, _ in part for weight in weights[index]])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    online = taken[0].source == "online"
    return MicroBatch(
        source=taken[0].source,
        groups=taken,
        advantages=torch.cat([_advantages(group, config) for group in taken]),
        weights=torch.where(counted, share, torch.zeros_like(share)),
        mask=mask,
        counted=mask & counted[:, None],
        reference=_padded([group.reference_logprobs for group in taken]) if taken[0].reference_logprobs else None,
        rollout=_padded([group.rollout_logprobs for group in taken]) if online else None,
    )


def micro_loss(
    batch: MicroBatch, policy_logprobs: Tensor, config: TrainingConfig, recorded: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """A micro-batch's share of the step's loss.

    Args:
        batch: its groups.
        policy_logprobs: (B, T) float with gradient, nats.
        config: objective and its settings.
        recorded: (B, T) float, nats: the policy at the start of the step; None on the step's first update.

    Returns:
        The share (shares of all micro-batches and processes add up to the step's loss) and one number for
        each of `FIGURES`.
    """
    clipped = torch.zeros_like(batch.mask)
    if config.objective == "mbpo":
        terms = _hybrid(batch, policy_logprobs, config, recorded)
        loss, clipped = terms.loss, terms.clipped
    elif config.objective == "dpo":
        loss = _dpo(batch, policy_logprobs, config)
    else:
        loss = sft_loss(policy_logprobs, batch.mask, batch.weights)
    with torch.no_grad():
        return loss, _figures(batch, policy_logprobs.detach(), loss.detach(), clipped)


def _hybrid(batch: MicroBatch, policy_logprobs: Tensor, config: TrainingConfig, recorded: Tensor | None) -> HybridLoss:
    old, reference = batch.rollout, _reference(batch, policy_logprobs)
    if old is None:
        old = offline_old_logprobs(config.offline_ratio, policy_logprobs, reference, recorded)
    return hybrid_loss(
        policy_logprobs,
        old,
        reference,
        batch.advantages,
        batch.mask,
        batch.weights,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        beta=config.beta,
        max_drop=config.max_drop,
        shaped=batch.source == "offline" and config.offline_ratio == "shaped",
    )


def _dpo(batch: MicroBatch, policy_logprobs: Tensor, config: TrainingConfig) -> Tensor:
    policy, reference = (
        torch.where(batch.mask, logprobs, torch.zeros_like(logprobs)).sum(dim=1)
        for logprobs in (policy_logprobs, _reference(batch, policy_logprobs))
    )
    losses = dpo_loss(policy[0::2], policy[1::2], reference[0::2], reference[1::2], beta=config.dpo_beta)
    return (losses * batch.weights[0::2]).sum()


def _figures(batch: MicroBatch, policy: Tensor, loss: Tensor, clipped: Tensor) -> dict[str, float]:
    counted = batch.counted
    rows = counted.any(dim=1)
    figures = dict.fromkeys(FIGURES, 0.0)
    figures[f"loss_{batch.source}"] = float(loss)
    reference = _reference(batch, policy)
    figures["kl"] = float(_kept(k3(policy, reference), counted).sum(dtype=torch.float64))
    figures["kl_tokens"] = 0.0 if batch.reference is None else float(counted.sum())
    figures["clipped"] = float((clipped & counted).sum())
    figures["tokens"] = float(counted.sum())
    figures["advantage"] = float(batch.advantages.abs()[rows].sum(dtype=torch.float64))
    figures["completions"] = float(rows.sum())
    if batch.rollout is not None:
        figures["tokens_online"] = figures["tokens"]
        figures["gap_online"] = float(_kept((policy - batch.rollout).abs(), counted).sum(dtype=torch.float64))
    else:
        size = len(batch.groups[0].completions)
        means, before = (
            _kept(logprobs, counted).sum(dim=1, dtype=torch.float64) / counted.sum(dim=1).clamp(min=1)
            for logprobs in (policy, reference)
        )
        figures["chosen"], figures["chosen_reference"] = float(means[0::size].sum()), float(before[0::size].sum())
        figures["rejected"] = float(means[1::size].sum()) if size > 1 else 0.0
        figures["pairs"] = float(rows[0::size].sum())
    return figures


def _reference(batch: MicroBatch, policy_logprobs: Tensor) -> Tensor:
    """The reference's log-probs; the policy's own where none were scored, because nothing then depends on them."""
    return policy_logprobs.detach() if batch.reference is None else batch.reference


def _advantages(group: PromptGroup, config: TrainingConfig) -> Tensor:
    if config.objective != "mbpo":  # neither SFT nor DPO weighs completions by reward
        return torch.zeros(len(group.completions))
    return group_advantages(torch.tensor([group.rewards]), scale_by_std=config.scale_by_std)[0]


def _padded(nested: Sequence[list[list[float]] | None]) -> Tensor:
    return pad([torch.tensor(row) for rows in nested for row in rows or []])


def _kept(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, torch.zeros_like(values))
