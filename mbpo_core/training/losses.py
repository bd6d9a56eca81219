"""What one micro-batch adds to the step's loss, and what it adds to the step's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mbpo_core.config import TrainingConfig
from mbpo_core.objectives.hybrid import HybridLoss, hybrid_loss
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.passes import CHOSEN, MASKED, REJECTED, WRONG, PairScores, Pass
from mbpo_core.objectives.perception import perception_kl
from mbpo_core.objectives.ratios import offline_old_logprobs
from mbpo_core.objectives.sft import sft_loss
from mbpo_core.objectives.table import DIVERGENCES, PAIR_LOSSES, added_terms
from mbpo_core.objectives.truncation import truncated_weights
from mbpo_core.training.micro import MicroBatch
from mbpo_core.training.scorer import Scored
from mbpo_core.training.statistics import Statistics

FIGURES = (
    "loss_offline",
    "loss_online",
    "kl",
    "kl_tokens",
    "clipped",
    "tokens",
    "positions",
    "advantage",
    "completions",
    "chosen",
    "rejected",
    "chosen_reference",
    "chosen_reward",
    "rejected_reward",
    "wrong_image_reward",
    "pairs",
    "tokens_online",
    "gap_online",
    "weight_online",
    "capped_online",
)
"""Names of the sums that `micro_loss` returns; each adds up over micro-batches and processes."""

PEAKS = ("gap_peak",)
"""Names of the largest values that it returns; of several the largest counts."""


def micro_loss(
    batch: MicroBatch,
    scored: Sequence[Scored],
    config: TrainingConfig,
    recorded: Tensor | None = None,
    statistics: Statistics | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """A micro-batch's share of the step's loss.

    Args:
        batch: its groups.
        scored: what the policy made of each of the batch's looks, with gradient.
        config: objective and its settings.
        recorded: (B, T) float, nats: the policy at the start of the step, of the first look; None on the step's first
            update.
        statistics: numbers over all pairs that some objectives need.

    Returns:
        The share (shares of all micro-batches and processes add up to the step's loss) and one number for
        each of `FIGURES` and `PEAKS`.
    """
    logprobs = batch.by_pass([one.logprobs for one in scored])
    first, clipped = scored[0].logprobs, torch.zeros_like(batch.mask)
    if batch.source == "online" or config.objective == "grpo":
        terms = _hybrid(batch, first, config, recorded)
        loss, clipped = terms.loss, terms.clipped
        if MASKED in logprobs:
            loss = loss - config.perception_weight * _perception(batch, first, logprobs[MASKED], config.perception_cap)
    elif config.objective == "sft":
        loss = sft_loss(first, batch.mask, batch.weights)
    else:
        loss = torch.zeros((), device=first.device)
    if batch.source == "offline":
        loss = loss + _pair_losses(batch, logprobs, scored, config, statistics or Statistics())
    with torch.no_grad():
        return loss, _figures(batch, first.detach(), logprobs, loss.detach(), clipped, config)


def added(total: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """The figures of two micro-batches together."""
    return {name: max(value, more[name]) if name in PEAKS else value + more[name] for name, value in total.items()}


def _pair_losses(
    batch: MicroBatch,
    logprobs: Mapping[Pass, Tensor],
    scored: Sequence[Scored],
    config: TrainingConfig,
    statistics: Statistics,
) -> Tensor:
    """Losses that are one number a pair, weighted and summed."""
    terms = added_terms(config)
    if config.objective in PAIR_LOSSES:
        terms = [(1.0, PAIR_LOSSES[config.objective]), *terms]
    total = torch.zeros((), device=batch.mask.device)
    if not terms:
        return total
    divergences = batch.by_pass([one.logprobs if one.divergences is None else one.divergences for one in scored])
    scores = PairScores(
        policy=logprobs,
        reference=batch.reference or {},
        masks=batch.masks,
        second=batch.second or {},
        weights=batch.segments,
        divergences={one: divergences[one] for one in DIVERGENCES.get(config.objective, ())},
        shift=statistics.shift,
        gain_mean=statistics.gain_mean,
        gain_std=statistics.gain_std,
    )
    for weight, term in terms:
        total = total + weight * (term(scores, config) * batch.group_weights).sum()
    return total


def _hybrid(batch: MicroBatch, policy_logprobs: Tensor, config: TrainingConfig, recorded: Tensor | None) -> HybridLoss:
    old, reference = batch.rollout if batch.start is None else batch.start, _reference(batch, policy_logprobs)
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
        surrogate=config.surrogate,
        correction=_correction(batch, config),
    )


def _correction(batch: MicroBatch, config: TrainingConfig) -> Tensor | None:
    if batch.start is None or batch.rollout is None:
        return None
    return truncated_weights(batch.start, batch.rollout, cap=config.rollout_correction)


def _perception(batch: MicroBatch, seeing: Tensor, masked: Tensor, cap: float) -> Tensor:
    """PAPO's divergence between what is said with the image and with most of it hidden, as the loss weighs tokens."""
    return (_kept(perception_kl(seeing, masked, cap=cap), batch.mask).sum(dim=1) * batch.weights).sum()


def _figures(
    batch: MicroBatch,
    policy: Tensor,
    logprobs: Mapping[Pass, Tensor],
    loss: Tensor,
    clipped: Tensor,
    config: TrainingConfig,
) -> dict[str, float]:
    counted = batch.counted
    rows = counted.any(dim=1)
    figures = dict.fromkeys((*FIGURES, *PEAKS), 0.0)
    figures[f"loss_{batch.source}"] = float(loss)
    reference = _reference(batch, policy)
    figures["kl"] = float(_kept(k3(policy, reference), counted).sum(dtype=torch.float64))
    figures["kl_tokens"] = 0.0 if batch.reference is None else float(counted.sum())
    figures["clipped"] = float((clipped & counted).sum())
    figures["tokens"] = float(counted.sum())
    figures["positions"] = float(batch.positions)
    figures["advantage"] = float(batch.advantages.abs()[rows].sum(dtype=torch.float64))
    figures["completions"] = float(rows.sum())
    if batch.rollout is not None:
        gaps = _kept(((policy if batch.start is None else batch.start) - batch.rollout).abs(), counted)
        figures["tokens_online"] = figures["tokens"]
        figures["gap_online"], figures["gap_peak"] = float(gaps.sum(dtype=torch.float64)), float(gaps.max())
        if (weights := _correction(batch, config)) is not None:
            figures["weight_online"] = float(_kept(weights, counted).sum(dtype=torch.float64))
            figures["capped_online"] = float(((weights >= config.rollout_correction) & counted).sum())
    else:
        figures |= _pair_figures(batch, logprobs, config)
    return figures


def _pair_figures(batch: MicroBatch, logprobs: Mapping[Pass, Tensor], config: TrainingConfig) -> dict[str, float]:
    """Mean log-probs and implied rewards, summed over the pairs that count."""
    reference = batch.reference or {}
    figures = {"pairs": float(batch.pairs_counted.sum())}

    def total(values: Tensor) -> float:
        return float(_kept(values.detach().double(), batch.pairs_counted).sum())

    def sums(which: Mapping[Pass, Tensor], one: Pass) -> Tensor:
        return _kept(which[one], batch.masks[one.side]).sum(dim=1, dtype=torch.float64)

    for name, one in (("chosen", CHOSEN), ("rejected", REJECTED), ("wrong_image", WRONG)):
        if one not in logprobs:
            continue
        length = batch.masks[one.side].sum(dim=1)
        if name != "wrong_image":
            figures[name] = total(sums(logprobs, one) / length)
        if one in reference:
            figures[f"{name}_reward"] = config.dpo_beta * total(sums(logprobs, one) - sums(reference, one))
        if one == CHOSEN and one in reference:
            figures["chosen_reference"] = total(sums(reference, one) / length)
    return figures


def _reference(batch: MicroBatch, policy_logprobs: Tensor) -> Tensor:
    """The reference's log-probs; the policy's own where none were scored, because nothing then depends on them."""
    return policy_logprobs.detach() if batch.first_reference is None else batch.first_reference


def _kept(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0)
