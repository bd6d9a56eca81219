"""The method, start to end. Read this file first."""

from __future__ import annotations

from prefect import flow

from flows.forms import BaseName, Fields, StageWord, shown_pipeline
from flows.hooks import SERVICE
from flows.opening import begin, open_run, planned
from mbpo_core.config import PipelineConfig
from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.evaluation import evaluate_policies
from tasks.negatives import make_images, mine_negatives
from tasks.notes import note_plans
from tasks.pairs import build_pairs
from tasks.promotion import promote
from tasks.report import write_report
from tasks.rollouts import collect_rollouts
from tasks.run import Run
from tasks.samples import import_samples
from tasks.training import train_baseline, train_policy


def follow_method(run: Run) -> ArtifactRef:
    """Samples in, aligned checkpoint and report out.

    The same lines serve a real run and a mere plan: `run` decides what a call does.
    """
    reference = run.base_policy()
    samples = import_samples(run)
    policy, pairs = train_method(run, samples, reference)
    baselines = [train_baseline(run, name, reference, pairs) for name in run.config.baselines]
    evaluation = evaluate_policies(run, samples, [reference, *baselines, policy])
    promote(run, evaluation, policy)
    return write_report(run, run.made())


def train_method(run: Run, samples: ArtifactRef, reference: PolicyRef) -> tuple[PolicyRef, ArtifactRef | None]:
    """The policy that the method makes of the reference, and the pairs it learned from."""
    policy, pairs, images, rollouts = reference, None, None, None
    for round_index in range(run.config.training_rounds):
        if round_index == 0 or run.config.remine:
            negatives = mine_negatives(run, samples, policy, round_index)
            pairs = build_pairs(run, negatives, policy, round_index)
            images = make_images(run, samples, pairs, policy, round_index)
        rollouts = collect_rollouts(run, samples, policy, rollouts, round_index)
        policy = train_policy(run, policy, reference, pairs, images, rollouts, round_index)
    return policy, pairs


@flow(name="pipeline", **SERVICE)
def pipeline(
    base: BaseName = "",
    start_at: StageWord = "samples",
    only: list[StageWord] = [],  # noqa: B006
    force: list[StageWord] = [],  # noqa: B006
    dry_run: bool = False,
    fields: Fields = "changed",
    config: PipelineConfig = shown_pipeline(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Run the whole method; stages whose artifacts exist are reused.

    Args:
        base: Name of a run config, such as demo or smoke, or of a file in the worker's folder MBPO_CONFIGS; empty for
            the defaults.
        start_at: Stages before this one are taken as the run has them.
        only: Stages to do; the others are taken as the run has them. Empty does all.
        force: Stages to compute even if their artifacts exist.
        dry_run: Only show the plan.
        fields: changed, so that a field of `config` left as shown keeps what `base` has; or all, which takes every
            field as shown.
        config: Settings of the run, laid over those of `base`.
    """
    run = open_run(config, base, fields, only=only, start_at=start_at, force=force)
    note_plans(planned(run, follow_method), run.config.run, run.store.root)
    return None if dry_run else follow_method(begin(run))
