"""samples, alone: read the input of one run anew."""

from __future__ import annotations

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream, explained
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
@explained
def samples(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: SamplesConfig = SamplesConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun samples of one run: read the input as it is now."""
    form = StageForm("samples", run, upstream, settings, changes, mode, fields)
    return carry_out(form, rerun, dry_run=dry_run)
