"""training, alone: train one round, or one baseline, anew."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RoundIndex, RunName, StageForm, Target, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import TrainingConfig
from mbpo_core.errors import ConfigError
from mbpo_core.stage import ArtifactRef
from tasks.run import Mode, Run
from tasks.training import train_baseline, train_policy


def rerun(run: Run, round_index: int, target: Target = "policy") -> ArtifactRef:
    """From the run's latest pairs and rollouts, and the policy this round starts from."""
    config, reference = run.config, run.base_policy()
    pairs = run.latest(run.mined("pairs", round_index)) if config.wants_pairs else None
    if target != "policy":
        if pairs is None:
            raise ConfigError(
                f"run {config.run} has no pairs, so it has no baseline {target}", remedy="Choose target policy."
            )
        train_baseline(run, target, reference, pairs)
    else:
        images = run.latest(run.mined("negatives/images", round_index)) if config.makes_images else None
        rollouts = run.latest(f"rollouts/{round_index}") if config.training.use_online else None
        train_policy(run, run.policy_before(round_index), reference, pairs, images, rollouts, round_index)
    return next(reversed(run.made().values()))


@flow(name="training", **SERVICE)
@explained
def training(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    round_index: RoundIndex = 0,
    target: Target = "policy",
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: TrainingConfig = TrainingConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun one round's training of one run, or one of its baselines.

    Args:
        round_index: Round of the online loop, from 0.
        target: The policy, or a baseline in its place (then the round does not matter).
    """
    form = StageForm(
        "training",
        run,
        upstream,
        settings,
        changes,
        mode,
        fields,
        round_index=round_index if target == "policy" else None,
    )
    return carry_out(form, partial(rerun, round_index=round_index, target=target), dry_run=dry_run)
