"""negatives, alone: mine one run's samples anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RunName, open_stage
from mbpo_core.stage import ArtifactRef
from tasks.negatives import mine_negatives
from tasks.run import Run


def rerun(run: Run) -> ArtifactRef:
    """From the run's latest samples."""
    return mine_negatives(run, run.latest("samples"), run.base_policy())


@flow(name="negatives")
def negatives(run: RunName = "default", changes: list[str] = [], force: bool = False) -> ArtifactRef:  # noqa: B006
    """Rerun negatives of one run.

    Args:
        run: name of the run.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("negatives", run, changes, force))
