"""The method, start to end. Read this file first."""

from __future__ import annotations

from prefect import flow

from flows.opening import StageWord, open_run
from mbpo_core.config import PipelineConfig
from mbpo_core.stage import ArtifactRef
from tasks.evaluation import evaluate_policies
from tasks.negatives import mine_negatives
from tasks.pairs import build_pairs
from tasks.report import write_report
from tasks.rollouts import collect_rollouts
from tasks.run import Run
from tasks.samples import import_samples
from tasks.training import train_baseline, train_policy


def follow_method(run: Run) -> ArtifactRef:
    """Samples in, aligned checkpoint and report out.

    The same lines serve a real run and a mere plan: `run` decides what a call does.
    """
    config = run.config
    reference = policy = run.base_policy()
    samples = import_samples(run)
    negatives = mine_negatives(run, samples, reference)
    pairs = build_pairs(run, negatives, reference)
    for round_index in range(config.rounds):
        rollouts = collect_rollouts(run, samples, policy, round_index)
        policy = train_policy(run, policy, reference, pairs, rollouts, round_index)
    baselines = [train_baseline(run, objective, reference, pairs) for objective in config.baselines]
    evaluate_policies(run, samples, [reference, *baselines, policy])
    return write_report(run, run.made())


@flow(name="mbpo")
def mbpo(config: PipelineConfig, force: list[StageWord] = []) -> ArtifactRef:  # noqa: B006 (the form's default)
    """Run the whole method; stages whose artifacts exist are reused.

    Args:
        config: settings of the run.
        force: stages to compute even if their artifacts exist.
    """
    return follow_method(open_run(config, force))
