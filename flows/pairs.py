"""pairs, alone: filter one run's negatives anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RunName, open_stage
from mbpo_core.stage import ArtifactRef
from tasks.pairs import build_pairs
from tasks.run import Run


def rerun(run: Run) -> ArtifactRef:
    """From the run's latest negatives; with `remine`, those of the last round."""
    last = run.last_mining
    made = build_pairs(run, run.latest(run.mined("negatives", last)), run.policy_before(last), last)
    assert made is not None
    return made


@flow(name="pairs")
def pairs(run: RunName = "default", changes: list[str] = [], force: bool = False) -> ArtifactRef:  # noqa: B006
    """Rerun pairs of one run.

    Args:
        run: name of the run.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("pairs", run, changes, force))
