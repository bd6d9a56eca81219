"""negatives, alone: mine one run's samples anew."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import NegativesConfig
from mbpo_core.errors import ConfigError
from mbpo_core.stage import ArtifactRef
from tasks.negatives import make_images, mine_negatives
from tasks.run import Mode, Run


def rerun(run: Run, images: bool = False) -> ArtifactRef:
    """From the run's latest samples, or, of the images, its latest pairs; with `remine`, those of the last round."""
    last = run.last_mining
    samples, policy = run.latest("samples"), run.policy_before(last)
    if images:
        made = make_images(run, samples, run.latest(run.mined("pairs", last)), policy, last)
    else:
        made = mine_negatives(run, samples, policy, last)
    if made is None:
        objective = run.config.training.objective
        what = "rejected images made for its pairs" if images else "negatives"
        raise ConfigError(
            f"this run has no {what}",
            where=f"run {run.config.run}, objective {objective}",
            remedy="Choose another method or objective: mbpo methods says what each looks at.",
        )
    return made


@flow(name="negatives", **SERVICE)
@explained
def negatives(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    images: bool = False,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: NegativesConfig = NegativesConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun negatives of one run: mining, or the rejected images made for its pairs.

    Args:
        images: The rejected images made for the run's pairs, in place of the mining; then `settings` are those of
            section images.
    """
    form = StageForm("negatives", run, upstream, settings, changes, mode, fields, images=images)
    return carry_out(form, partial(rerun, images=images), dry_run=dry_run)
