"""training, alone: train one round, or one baseline, anew."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from flows.opening import RoundIndex, RunName, open_stage
from mbpo_core.stage import ArtifactRef
from tasks.run import Run
from tasks.training import train_baseline, train_policy

Target = Literal["policy", "sft", "dpo"]


def rerun(run: Run, round_index: int, target: Target = "policy") -> ArtifactRef:
    """From the run's latest pairs and rollouts, and the policy this round starts from."""
    config, reference = run.config, run.base_policy()
    pairs = run.latest(run.mined("pairs", round_index)) if config.wants_pairs else None
    if target != "policy":
        train_baseline(run, target, reference, pairs)
    else:
        images = run.latest(run.mined("negatives/images", round_index)) if config.makes_images else None
        rollouts = run.latest(f"rollouts/{round_index}") if config.training.use_online else None
        train_policy(run, run.policy_before(round_index), reference, pairs, images, rollouts, round_index)
    return next(reversed(run.made().values()))


@flow(name="training")
def training(
    run: RunName = "default",
    round_index: RoundIndex = 0,
    target: Target = "policy",
    changes: list[str] = [],  # noqa: B006
    force: bool = False,
) -> ArtifactRef:
    """Rerun one round's training of one run, or one of its baselines.

    Args:
        run: name of the run.
        round_index: round of the online loop, from 0.
        target: the policy, or a baseline in its place (then the round does not matter).
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("training", run, changes, force), round_index, target)
