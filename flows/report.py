"""report, alone: write one run's page anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RunName, open_stage
from mbpo_core.stage import ArtifactRef
from tasks.report import write_report
from tasks.run import Run, pointer_keys


def rerun(run: Run) -> ArtifactRef:
    """From whatever the run's pointers name now."""
    there = run.store.run(run.config.run).pointers()
    return write_report(run, {key: there[key] for key in pointer_keys(run.config) if key in there})


@flow(name="report")
def report(run: RunName = "default", changes: list[str] = [], force: bool = False) -> ArtifactRef:  # noqa: B006
    """Rerun the report of one run.

    Args:
        run: name of the run.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("report", run, changes, force))
