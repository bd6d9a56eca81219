"""evaluation, alone: ask one run's policies anew."""

from __future__ import annotations

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import EvaluationConfig
from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.evaluation import evaluate_policies
from tasks.promotion import promote
from tasks.run import Mode, Run


def rerun(run: Run) -> ArtifactRef:
    """The run's policies on its latest samples."""
    policies = policies_of(run)
    made = evaluate_policies(run, run.latest("samples"), policies)
    promote(run, made, policies[-1])
    return made


def policies_of(run: Run) -> list[PolicyRef]:
    """The base model, the run's baselines, and its last checkpoint.

    Raises:
        StoreError: the run has not been trained.
        ModelError: the base model cannot be used.
    """
    baselines = [run.latest_policy(f"training/{name}", name) for name in run.config.baselines]
    return [run.base_policy(), *baselines, run.policy_before(run.config.training_rounds)]


@flow(name="evaluation", **SERVICE)
@explained
def evaluation(
    run: RunName = UNNAMED,
    upstream: Upstream = LATEST,
    mode: Mode = "reuse",
    dry_run: bool = False,
    changes: Changes = [],  # noqa: B006
    fields: Fields = "changed",
    settings: EvaluationConfig = EvaluationConfig(),  # noqa: B008 (the form's default)
) -> ArtifactRef | None:
    """Rerun the evaluation of one run."""
    form = StageForm("evaluation", run, upstream, settings, changes, mode, fields)
    return carry_out(form, rerun, dry_run=dry_run)
