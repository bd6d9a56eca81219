"""negatives, alone: mine one run's samples anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RunName, open_stage
from mbpo_core.errors import ConfigError
from mbpo_core.stage import ArtifactRef
from tasks.negatives import make_images, mine_negatives
from tasks.run import Run


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


@flow(name="negatives")
def negatives(
    run: RunName = "default",
    images: bool = False,
    changes: list[str] = [],  # noqa: B006
    force: bool = False,
) -> ArtifactRef:
    """Rerun negatives of one run.

    Args:
        run: name of the run.
        images: the rejected images made for its pairs, in place of the mining.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("negatives", run, changes, force), images)
