"""One stage again: what its form asks for, planned, shown, done."""

from __future__ import annotations

from collections.abc import Callable

from flows.forms import StageForm
from flows.opening import as_tasks, open_stage, planned
from mbpo_core.stage import ArtifactRef
from tasks.notes import note_plans, note_stale
from tasks.run import Run


def carry_out(form: StageForm, rerun: Callable[[Run], ArtifactRef], *, dry_run: bool) -> ArtifactRef | None:
    """Show the plan on the flow run; unless `dry_run`, carry it out and name what is stale then.

    Args:
        rerun: the stage's own.

    Raises:
        ConfigError: the form asks for something that cannot be; lists all of it, before anything is loaded.
    """
    run = open_stage(form)
    note_plans(planned(run, rerun), run.config.run, run.store.root)
    if dry_run:
        return None
    made = rerun(as_tasks(run))
    note_stale(run.store, run.config.run)
    return made
