"""samples, alone: read the input of one run anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RunName, open_stage
from mbpo_core.stage import ArtifactRef
from tasks.run import Run
from tasks.samples import import_samples


def rerun(run: Run) -> ArtifactRef:
    """From the input as it is now."""
    return import_samples(run)


@flow(name="samples")
def samples(run: RunName = "default", changes: list[str] = [], force: bool = False) -> ArtifactRef:  # noqa: B006
    """Rerun samples of one run.

    Args:
        run: name of the run.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("samples", run, changes, force))
