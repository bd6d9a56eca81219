"""evaluation, alone: ask one run's policies anew."""

from __future__ import annotations

from prefect import flow

from flows.forms import LATEST, UNNAMED, Changes, Fields, RunName, StageForm, Upstream, explained
from flows.hooks import SERVICE
from flows.rerunning import carry_out
from mbpo_core.config import EvaluationConfig
from mbpo_core.stage import ArtifactRef
from tasks.evaluation import evaluate_policies
from tasks.promotion import promote
from tasks.run import Mode, Run


def rerun(run: Run) -> ArtifactRef:
    """The base model, the run's baselines, and its last checkpoint, on the run's latest samples."""
    baselines = [run.latest_policy(f"training/{name}", name) for name in run.config.baselines]
    trained = run.policy_before(run.config.training_rounds)
    made = evaluate_policies(run, run.latest("samples"), [run.base_policy(), *baselines, trained])
    promote(run, made, trained)
    return made


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
