"""Training as a stage: reads pairs and rollouts, publishes a checkpoint and its metrics."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from mbpo_core.config import TrainingConfig
from mbpo_core.records import TrainingStep
from mbpo_core.stage import Progress, Reader, StageContext, Workers
from mbpo_core.training.job import Job, JobRows, write_job
from mbpo_core.training.monitoring import monitors_of
from mbpo_core.training.plan import deal_pairs, wants_offline, wants_online
from mbpo_core.training.rows import ListTable, Picked, Table, join_images, without_replaced


def run(context: StageContext) -> None:
    """One round of training.

    Inputs: `pairs`, dealt out over the rounds, or `pairs/<round>`, mined for this round alone; `negatives`, whose
    images take the place of the pairs' own rejected ones; `rollouts` (left out without use_online); `previous`, the
    training artifact of the round before, whose optimizer state goes on. Policies: `policy` starts the round,
    `reference` is the frozen base, `second_reference` another one that some objectives have.

    Writes: one `TrainingStep` a step, `checkpoint/` (a model folder), `state/` (optimizer state for the next
    round, no part of the content), `summary.json`.

    Raises:
        DataError: there is nothing to train on, or an input cannot be used.
        TrainingDiverged: a loss or gradient is not finite.
        WorkerFailed: a training process died or took too long.
    """
    from mbpo_core.training.checkpoint import adopt
    from mbpo_core.training.loop import read_result, train

    rows = _rows(context)
    job = _job(context)
    if (before := context.goes_on_from) is not None:
        steps = [TrainingStep.model_validate(row) for row in before.rows()]
        adopt(job.checkpoints, before.folder("state"), steps, job.config.inner_steps)
    if context.workers is None:
        train(job, rows, context.progress)
    else:
        train_in(context.workers, job, rows, context.progress)
    state, summary = read_result(job)
    output = context.output
    for part in output.parts(len(state.rows), max(1, len(state.rows))):
        part.finish([row.model_dump() for row in state.rows[part.start : part.stop]])
    output.add_folder("checkpoint", job.result / "checkpoint")
    output.add_folder("state", job.result / "state", content=False)
    output.add_json("summary.json", summary)


def train_in(workers: Workers, job: Job, rows: JobRows, progress: Progress) -> None:
    """`loop.train` in processes of their own; raises what it raises, and WorkerFailed."""
    folder = Path(job.work) / "job"
    shutil.rmtree(folder, ignore_errors=True)
    write_job(folder, job, rows)
    workers.run("train", folder, progress)


def _job(context: StageContext) -> Job:
    policy, reference = context.policies["policy"], context.policies["reference"]
    second = context.policies.get("second_reference")
    previous = context.inputs.get("previous")
    return Job(
        config=context.config,
        policy_config=context.policy_config,
        policy=str(context.open_policy(policy)),
        policy_digest=policy.digest,
        reference=str(context.open_policy(reference)),
        reference_digest=reference.digest,
        second_reference=str(context.open_policy(second)) if second else "",
        second_reference_digest=second.digest if second else "",
        previous=str(previous.folder("state")) if previous else "",
        seed=context.seed,
        round_index=context.round_index,
        rounds=context.rounds,
        work=str(context.output.scratch() / "training"),
        kept=str(context.output.cache("reference")),
        monitors=monitors_of(context.config, context.name),
    )


def _rows(context: StageContext) -> JobRows:
    config: TrainingConfig = context.config
    rows = _pairs(context) if wants_offline(config) else JobRows()
    if wants_online(config):
        rollouts = context.inputs["rollouts"]
        _warn_of_stale_rollouts(context, rollouts)
        rows = JobRows(rows.pairs, without_replaced(rollouts), rows.dealt)
    return rows


def _pairs(context: StageContext) -> JobRows:
    """The round's share of the pairs, with the rejected images that were made for them."""
    own = context.inputs.get(f"pairs/{context.round_index}")
    pairs: Table = own or context.inputs["pairs"]
    if "negatives" in context.inputs and context.config.wants_rejected_images:
        whole = pairs.count()
        pairs = join_images(pairs, context.inputs["negatives"])
        if (missing := whole - pairs.count()) > 0:
            context.progress.log(f"left out: {missing} of {whole} pairs, for which no rejected image could be made")
    rounds = (0, 1) if own else (context.round_index, context.rounds)
    dealt = np.array(deal_pairs(pairs.count(), context.seed, *rounds), dtype=np.int64)
    places = np.sort(dealt)
    return JobRows(Picked(pairs, places), ListTable(), np.searchsorted(places, dealt).tolist())


def _warn_of_stale_rollouts(context: StageContext, rollouts: Reader) -> None:
    digests = {row["policy_digest"] for row in rollouts.rows(columns=["policy_digest"])}
    others = digests - {context.policies["policy"].digest}
    if others:
        context.progress.log(
            f"the rollouts were sampled by another policy than this round starts from ({sorted(others)[0][:12]}); "
            "the recorded log-probs correct for it, but rerunning rollouts is closer to on-policy"
        )
