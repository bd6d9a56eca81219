"""The method, start to end. Read this file first."""

from __future__ import annotations

from prefect import flow

from flows.opening import StageWord, open_run
from mbpo_core.config import PipelineConfig
from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.evaluation import evaluate_policies
from tasks.negatives import make_images, mine_negatives
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
    reference = run.base_policy()
    samples = import_samples(run)
    policy, pairs = train_method(run, samples, reference)
    baselines = [train_baseline(run, name, reference, pairs) for name in run.config.baselines]
    evaluate_policies(run, samples, [reference, *baselines, policy])
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


@flow(name="mbpo")
def mbpo(config: PipelineConfig, force: list[StageWord] = []) -> ArtifactRef:  # noqa: B006 (the form's default)
    """Run the whole method; stages whose artifacts exist are reused.

    Args:
        config: settings of the run.
        force: stages to compute even if their artifacts exist.
    """
    return follow_method(open_run(config, force))
