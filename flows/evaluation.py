"""evaluation, alone: ask one run's policies anew."""

from __future__ import annotations

from prefect import flow

from flows.opening import RunName, open_stage
from mbpo_core.stage import ArtifactRef
from tasks.evaluation import evaluate_policies
from tasks.run import Run


def rerun(run: Run) -> ArtifactRef:
    """The base model, the run's baselines, and its last checkpoint, on the run's latest samples."""
    baselines = [run.latest_policy(f"training/{name}", name) for name in run.config.baselines]
    trained = run.policy_before(run.config.training_rounds)
    return evaluate_policies(run, run.latest("samples"), [run.base_policy(), *baselines, trained])


@flow(name="evaluation")
def evaluation(run: RunName = "default", changes: list[str] = [], force: bool = False) -> ArtifactRef:  # noqa: B006
    """Rerun the evaluation of one run.

    Args:
        run: name of the run.
        changes: settings to change, as section.field=value.
        force: compute even if the artifact exists.
    """
    return rerun(open_stage("evaluation", run, changes, force))
