"""samples, alone: read the input of one run anew."""

from __future__ import annotations

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import SamplesConfig
from mbpo_core.stage import ArtifactRef
from tasks.run import Mode, Run
from tasks.samples import import_samples


def rerun(run: Run) -> ArtifactRef:
    """From the input as it is now."""
    return import_samples(run)


@flow(name="samples", **SERVICE)
def samples(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: SamplesConfig = SamplesConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun samples of one run: read the input as it is now.

    Args:
        run: Name of the run.
        upstream: latest, or digest prefixes or manifest URIs with spaces between; each is read in place of the run's
            latest artifact of its kind.
        mode: reuse what exists; resume, but begin nothing anew; or rerun, computing it even if it exists.
        dry_run: Only show the plan.
        changes: Settings to change, as section.field=value; they come after `settings`.
        fields: changed, so that a field of `settings` left as shown keeps what the run has; or all, which takes every
            field as shown.
        settings: Settings of the stage, laid over the run's own.
    """
    form = StageForm("samples", run, upstream, settings, changes, mode, fields)
    return carry_out(form, rerun, dry_run=dry_run)
