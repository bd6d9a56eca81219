"""How long trials will take on the demo scenes, from what stages took on one core of two that were busy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mbpo_core.config import PipelineConfig
from mbpo_core.execution import StagePlan
from mbpo_core.planning import shorter_digest
from mbpo_core.stages import STAGES

SECONDS: Mapping[str, float] = {
    "samples": 0.002,  # a sample
    "negatives": 0.03,  # a rejected image
    "attack": 0.0075,  # a gradient step on an image
    "pairs": 0.007,  # a pair
    "rollouts": 0.0015,  # a completion
    "training": 0.00045,  # a token position
    "evaluation": 0.008,  # a question
    "balance": 0.01,  # a question that is also asked with other images
}
"""Seconds a unit on one core of an ordinary server whose other core works on another trial, for the shipped models."""

_OVERHEAD_S = 2.0  # a stage: its start and its commit
_POSITIONS = 75  # of a completion with its image and question, roughly; where there is no budget
_SMALL = 0.4  # share of a large probe's questions that a small one has


def estimate_seconds(trials: Iterable[tuple[PipelineConfig, Sequence[StagePlan]]]) -> float | None:
    """Core seconds of everything that is not there yet, each artifact counted once.

    Args:
        trials: config of each, and the plans of its stages.

    Returns:
        None where the questions are not the demo's: nothing was measured there.
    """
    seconds, seen = 0.0, set[str]()
    for config, plans in trials:
        if config.samples.source != "demo":
            return None
        for plan in plans:
            if plan.status == "cached" or plan.digest in seen:
                continue
            work = _work(plan)
            seconds += _OVERHEAD_S
            if plan.goes_on_from is None and work not in seen:
                seconds += _stage_seconds(plan, config)
            seen |= {plan.digest, work}
    return seconds


def _work(plan: StagePlan) -> str:
    """What plans have in common that differ in a cheap last step only."""
    spec = STAGES[plan.stage]
    return shorter_digest(spec, spec.config.model_validate(plan.request.config), plan.identity) or plan.digest


def _stage_seconds(plan: StagePlan, config: PipelineConfig) -> float:
    """One stage of one trial; of pairs, as if none were filtered."""
    samples, training = config.samples, config.training
    completions = config.rollouts.prompts * config.rollouts.group_size
    if plan.stage == "samples":
        asked = _questions(samples.demo_eval) + _questions(samples.demo_dev)
        return SECONDS["samples"] * (samples.demo_offline + samples.demo_online + asked)
    if plan.stage == "negatives":
        made = plan.request.config
        steps = made["steps"] if made["method"] == "adversarial" else 0
        return samples.demo_offline * (SECONDS["negatives"] + SECONDS["attack"] * steps)
    if plan.stage == "pairs":
        return SECONDS["pairs"] * samples.demo_offline
    if plan.stage == "rollouts":
        return SECONDS["rollouts"] * completions
    if plan.stage == "training":
        free = samples.demo_offline + (completions if training.use_online else 0)
        positions = training.token_budget or free * _POSITIONS * training.epochs
        return SECONDS["training"] * positions / config.training_rounds
    each = samples.demo_eval if config.evaluation.split == "eval" else samples.demo_dev
    each = min(each, config.evaluation.per_probe or each)
    probes = config.evaluation.probes
    balanced = _questions(each, probes, at_most=config.evaluation.balance)
    return SECONDS["evaluation"] * _questions(each, probes) + SECONDS["balance"] * balanced


def _questions(each: int, probes: Sequence[str] = (), at_most: int | None = None) -> float:
    """Questions of the named probes, or of all, where a large one has `each`."""
    from mbpo_core.demo.probes import probe_names

    counts = [each if is_large else _SMALL * each for name, is_large in probe_names() if not probes or name in probes]
    return sum(count if at_most is None else min(count, at_most) for count in counts)
