"""rollouts, alone: sample one round's answers anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RoundIndex, RunName, open_stage
from mbpo_core.errors import ConfigError
from mbpo_core.stage import ArtifactRef
from tasks.rollouts import collect_rollouts
from tasks.run import Run


def rerun(run: Run, round_index: int) -> ArtifactRef:
    """From the run's latest samples and the policy this round starts from."""
    before = run.latest(f"rollouts/{round_index - 1}") if round_index and run.config.training.use_online else None
    made = collect_rollouts(run, run.latest("samples"), run.policy_before(round_index), before, round_index)
    if made is None:
        raise ConfigError("training.use_online is off, so this run has no rollouts", remedy="Switch it on.")
    return made


@flow(name="rollouts")
def rollouts(
    run: RunName = "default",
    round_index: RoundIndex = 0,
    changes: list[str] = [],  # noqa: B006
    force: bool = False,
) -> ArtifactRef:
    """Rerun one round's rollouts of one run.

    Args:
        run: name of the run.
        round_index: round of the online loop, from 0.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("rollouts", run, changes, force), round_index)
