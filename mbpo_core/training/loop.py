"""One round of training: pairs and rollouts in, trained policy and metrics out.

Everything happens in the order of `train`. All processes run it alike; only the first one writes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from mbpo_core.errors import ConfigError, DataError
from mbpo_core.models.adapters import ADAPTER_FOLDER, add_adapters, base_of, load_adapters
from mbpo_core.models.optional import require_peft
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.objectives.table import DIVERGENCES
from mbpo_core.stage import Progress
from mbpo_core.training.checkpoint import (
    TrainState,
    carry_over,
    latest_checkpoint,
    restore,
    write_state,
)
from mbpo_core.training.data import GroupSet
from mbpo_core.training.difficulty import pair_entropies
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.job import Job, JobRows
from mbpo_core.training.kept import KeptLogprobs, scored_under
from mbpo_core.training.memory import estimator_of, shortage
from mbpo_core.training.monitoring import require_packages, watching
from mbpo_core.training.plan import Batch, needs_reference, plan_batches, wants_offline, wants_online
from mbpo_core.training.publish import interpolate, publish_policy
from mbpo_core.training.reference import add_reference_logprobs, add_start_logprobs, read_slips
from mbpo_core.training.rows import missing_parts
from mbpo_core.training.scorer import Scorer, settle_packing
from mbpo_core.training.steps import Steps
from mbpo_core.training.world import World, join_world


def train(job: Job, rows: JobRows, progress: Progress) -> None:
    """Train for one round and leave checkpoint, state, metrics and summary in `job.result`.

    A killed call is simply made again: it goes on at the last whole checkpoint and ends bit-equal.

    Args:
        job: settings and folders.
        rows: where the round's pairs and rollouts are read.
        progress: told every step.

    Raises:
        DataError: there is nothing to train on, or an input cannot be used.
        ConfigError: the settings leave nothing to learn, or a monitor cannot be opened.
        TrainingDiverged: a loss or gradient is not finite.
    """
    _check(job)
    policy = _policy(job)
    world = join_world(policy.device)
    reference = _reference(policy, job)
    groups, batches, left_out = _plan(policy, reference, job, rows, world)
    _warn_of_memory(policy, job, groups, batches, world, progress)
    _score_references(reference, groups, batches, job, world)
    _score_start(policy, groups, batches, job, world)
    settle_packing(policy, groups, batches)
    live = _apart(policy, reference, job) if job.config.objective in DIVERGENCES else None
    del reference  # its memory is wanted now, unless somebody asks it while the policy learns
    engine = TrainingEngine(policy, job.config, world, live)
    try:
        state = _start(engine, job, job.fingerprint(rows))
        if left_out:
            progress.log("left out: " + ", ".join(f"{count} pairs without {what}" for what, count in left_out.items()))
        steps = len(batches) * job.config.inner_steps
        progress.start(f"training round {job.round_index + 1}/{job.rounds}", steps, len(state.rows))
        about = {**job.config.identity(), "seed": job.seed, "round_index": job.round_index, "rounds": job.rounds}
        with watching(job.monitors, state.rows, work=state.fingerprint, settings=about, first=world.rank == 0) as watch:
            Steps(job, engine, groups, batches, state, progress, watch).run()
        summary = _summary(engine, job, groups, batches, state) | {"left_out": left_out}
        with engine.whole():
            if world.rank == 0:
                _publish(policy, job, state, summary)
            world.barrier()
    finally:
        engine.close()


def read_result(job: Job) -> tuple[TrainState, dict[str, Any]]:
    """Metrics and summary that `train` left in `job.result`."""
    metrics = TrainState.model_validate_json((job.result / "metrics.json").read_text(encoding="utf-8"))
    return metrics, json.loads((job.result / "summary.json").read_text(encoding="utf-8"))


def _check(job: Job) -> None:
    """Refuse settings that cannot work before a model is loaded."""
    config = job.config
    require_packages(job.monitors)
    if config.lora_rank:
        require_peft()
        _check_adapters(job)
    if config.objective == "grpo" and config.reward_chosen == config.reward_rejected:
        raise ConfigError(
            f"training.reward_chosen and training.reward_rejected are both {config.reward_chosen}",
            expected="two different rewards",
            remedy="Their order is all that matters where advantages are scaled; 2 and 0 are the recipe's.",
        )
    if job.policy_config.dtype == "bfloat16" and not config.zero_stage:
        raise ConfigError(
            "training.zero_stage is 0 and policy.dtype is bfloat16",
            expected="zero_stage 1, 2 or 3, which keep float32 weights beside the rounded ones",
            remedy="Set training.zero_stage: 2, or train in float32.",
        )


def _check_adapters(job: Job) -> None:
    if job.policy_digest != job.reference_digest and not (Path(job.policy) / ADAPTER_FOLDER).is_dir():
        raise DataError(
            "training.lora_rank is set, and the round starts from a policy without adapters",
            where=job.policy,
            expected="the base model, or the checkpoint of a round that trained adapters",
            remedy="Keep training.lora_rank the same over all rounds.",
        )


def _policy(job: Job) -> Policy:
    """The model that the round starts from; with adapters it is the base model under those of the round before."""
    config = job.config
    if not config.lora_rank:
        return load_policy(Path(job.policy), job.policy_config)
    policy = load_policy(Path(job.reference), job.policy_config)
    add_adapters(policy, rank=config.lora_rank, alpha=config.lora_alpha, targets=config.lora_targets, seed=job.seed)
    if job.policy_digest != job.reference_digest:
        load_adapters(policy, Path(job.policy) / ADAPTER_FOLDER)
    return policy


def _reference(policy: Policy, job: Job) -> Policy | None:
    """The base model, which in the first round the policy still equals; None where nothing depends on it."""
    if not needs_reference(job.config):
        return None
    if job.config.lora_rank:
        return base_of(policy)
    same = job.policy_digest == job.reference_digest
    return policy if same else load_policy(Path(job.reference), job.policy_config)


def _apart(policy: Policy, reference: Policy | None, job: Job) -> Policy:
    """The reference as a model of its own, for objectives that ask it while the policy learns."""
    if reference is not None and reference is not policy:
        return reference
    return load_policy(Path(job.reference), job.policy_config)


def _plan(
    policy: Policy, reference: Policy | None, job: Job, rows: JobRows, world: World
) -> tuple[GroupSet, list[Batch], dict[str, int]]:
    """The round's groups, its batches, and how many pairs lack what the objective needs, by what."""
    config, groups = job.config, GroupSet(policy, job.config, job.seed)
    pairs = groups.add_pairs(rows.pairs) if wants_offline(config) else range(0)
    lacking = missing_parts(rows.pairs, config) if wants_offline(config) else {}
    offline = [pairs[place] for place in rows.order if place not in lacking] if wants_offline(config) else []
    online = groups.add_rollouts(rows.rollouts) if wants_online(config) else []
    if offline and reference is not None:
        read_slips(groups, offline, reference, world)  # before the plan, whose budget counts them
    entropies = None
    if config.curriculum != "none" and offline and reference is not None:
        entropies = pair_entropies(groups, offline, reference, config.curriculum, job.seed, world)
    batches = plan_batches(
        groups, offline, online, config, job.seed, job.round_index, rounds=job.rounds, entropies=entropies
    )
    if not batches:
        raise DataError(
            "the round has neither pairs nor rollouts to train on",
            where=f"training, round {job.round_index} of {job.rounds}",
            expected="at least one group",
            remedy="Every pair is dealt to one round: use no more rounds than pairs, or train on rollouts too."
            if not lacking
            else f"{len(lacking)} pairs lack {', '.join(sorted(set(lacking.values())))}, which objective "
            f"{config.objective} looks at: choose another, or make them (see mbpo methods).",
        )
    return groups, batches, dict(Counter(lacking.values()))


def _warn_of_memory(
    policy: Policy, job: Job, groups: GroupSet, batches: list[Batch], world: World, progress: Progress
) -> None:
    """Only a warning, because it is an estimate."""
    if world.device.type != "cuda" or world.rank:
        return
    device = torch.cuda.get_device_properties(world.device).total_memory
    if line := shortage(estimator_of(policy, job, groups, batches, world), device):
        progress.log(line)


def _score_references(reference: Policy | None, groups: GroupSet, batches: list[Batch], job: Job, world: World) -> None:
    """Under the base model, and under a second one where the objective has two."""
    if reference is None:
        return
    pairs = sorted({index for batch in batches for index in batch.offline})
    used = sorted({*pairs, *(index for batch in batches for index in batch.online)})
    kept = _kept(job, job.reference_digest, reference)
    add_reference_logprobs(groups, used, Scorer(reference), world, kept=kept)
    if pairs and job.second_reference:
        second = load_policy(Path(job.second_reference), job.policy_config)
        kept = _kept(job, job.second_reference_digest, second)
        add_reference_logprobs(groups, pairs, Scorer(second), world, second=True, kept=kept)


def _kept(job: Job, digest: str, policy: Policy) -> KeptLogprobs | None:
    if not job.kept:
        return None
    return KeptLogprobs(Path(job.kept), scored_under(digest, job.policy_config, policy.device.type))


def _score_start(policy: Policy, groups: GroupSet, batches: list[Batch], job: Job, world: World) -> None:
    """Rollouts under the policy that the round starts from, where the engine that sampled them is corrected for."""
    online = sorted({index for batch in batches for index in batch.online})
    if online and job.config.rollout_correction:
        add_start_logprobs(groups, online, Scorer(policy), world)


def _start(engine: TrainingEngine, job: Job, fingerprint: str) -> TrainState:
    """Resume this round, go on from the round before, or begin."""
    place = latest_checkpoint(job.checkpoints, fingerprint)
    if place is not None:
        return restore(place, engine)
    if not job.previous:
        return TrainState(fingerprint=fingerprint)
    before = carry_over(Path(job.previous), engine)
    return TrainState(fingerprint=fingerprint, optimizer_steps=before.optimizer_steps, next_step=before.next_step)


def _publish(policy: Policy, job: Job, state: TrainState, summary: dict[str, Any]) -> None:
    shutil.rmtree(job.result, ignore_errors=True)
    job.result.mkdir(parents=True)
    if job.config.interpolation < 1 and job.round_index == job.rounds - 1:
        # The optimizer state beside it stays that of the weights that were trained.
        on_cpu = job.policy_config.model_copy(update={"device": "cpu"})
        interpolate(policy, load_policy(Path(job.reference), on_cpu), job.config.interpolation)
    publish_policy(policy, Path(job.policy), job.result / "checkpoint")
    newest = latest_checkpoint(job.checkpoints, state.fingerprint)
    assert newest is not None  # Steps.run leaves one
    shutil.copytree(newest, job.result / "state")
    write_state(job.result / "state", state.model_copy(update={"rows": []}))
    (job.result / "metrics.json").write_text(state.model_dump_json(), encoding="utf-8")
    (job.result / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def _summary(
    engine: TrainingEngine, job: Job, groups: GroupSet, batches: list[Batch], state: TrainState
) -> dict[str, Any]:
    """What the round came to; nothing in it depends on how fast or on how many processes it ran."""
    rows = state.rows
    stopped = bool(rows) and rows[-1].stopped
    published = state.batches_done * job.config.inner_steps
    return {
        "objective": job.config.objective,
        "offline_ratio": job.config.offline_ratio,
        "round_index": job.round_index,
        "steps": len(rows),
        "stopped": stopped,
        "fired_step": state.fired_step,  # also where the rule was off: for comparisons at equal compute
        "published_step": rows[published - 1].step if published else state.next_step - len(rows) - 1,
        "optimizer_steps": state.optimizer_steps,
        "pairs": len({index for batch in batches for index in batch.offline}),
        "online_groups": len({index for batch in batches for index in batch.online}),
        "zero_variance_groups": len({index for batch in batches for index in batch.zero_variance}),
        "tokens": sum(row.tokens for row in rows),
        "positions": sum(row.positions for row in rows),
        "kl_last": rows[-1].kl if rows else None,
        "kl_max": max((row.kl for row in rows if row.kl is not None), default=None),
        "grad_norm_max": max((row.grad_norm for row in rows), default=None),
        "chosen_drift_last": next((r.chosen_drift for r in reversed(rows) if r.chosen_drift is not None), None),
        "rollout_gap": state.rollout_gap,
        "parameters": engine.count,
        "trainable_parameters": engine.trained,
    }
