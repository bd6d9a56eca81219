"""pairs, alone: filter one run's negatives anew."""

from __future__ import annotations

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import PairsConfig
from mbpo_core.stage import ArtifactRef
from tasks.pairs import build_pairs
from tasks.run import Mode, Run


def rerun(run: Run) -> ArtifactRef:
    """From the run's latest negatives; with `remine`, those of the last round."""
    last = run.last_mining
    made = build_pairs(run, run.latest(run.mined("negatives", last)), run.policy_before(last), last)
    assert made is not None
    return made


@flow(name="pairs", **SERVICE)
@explained
def pairs(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: PairsConfig = PairsConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun pairs of one run: filter its negatives anew."""
    form = StageForm("pairs", run, upstream, settings, changes, mode, fields)
    return carry_out(form, rerun, dry_run=dry_run)
