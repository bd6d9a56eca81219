"""report, alone: write one run's page anew."""

from __future__ import annotations

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import ReportConfig
from mbpo_core.stage import ArtifactRef
from tasks.report import write_report
from tasks.run import Mode, Run, pointer_keys


def rerun(run: Run) -> ArtifactRef:
    """From whatever the run's pointers name now, or what is named upstream in place of the pointer it was made for."""
    there = run.store.run(run.config.run).pointers() | {ref.key: ref for ref in run.choice.upstream.values()}
    return write_report(run, {key: there[key] for key in pointer_keys(run.config) if key in there})


@flow(name="report", **SERVICE)
@explained
def report(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: ReportConfig = ReportConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun the report of one run."""
    form = StageForm("report", run, upstream, settings, changes, mode, fields)
    return carry_out(form, rerun, dry_run=dry_run)
