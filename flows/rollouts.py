"""rollouts, alone: sample one round's answers anew."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RoundIndex, RunName, StageForm, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import ConfigError
from mbpo_core.stage import ArtifactRef
from tasks.rollouts import collect_rollouts
from tasks.run import Mode, Run


def rerun(run: Run, round_index: int) -> ArtifactRef:
    """From the run's latest samples and the policy this round starts from."""
    before = run.latest(f"rollouts/{round_index - 1}") if round_index and run.config.training.use_online else None
    made = collect_rollouts(run, run.latest("samples"), run.policy_before(round_index), before, round_index)
    if made is None:
        raise ConfigError("training.use_online is off, so this run has no rollouts", remedy="Switch it on.")
    return made


@flow(name="rollouts", **SERVICE)
@explained
def rollouts(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    round_index: RoundIndex = 0,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: RolloutsConfig = RolloutsConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun one round's rollouts of one run.

    Args:
        round_index: Round of the online loop, from 0.
    """
    form = StageForm("rollouts", run, upstream, settings, changes, mode, fields, round_index=round_index)
    return carry_out(form, partial(rerun, round_index=round_index), dry_run=dry_run)
