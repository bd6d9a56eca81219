"""A stage as a Prefect task. The store alone decides what is done; Prefect's cache is a view of it.

The digest is computed before the task and is its cache key. Prefect's record of a result knows nothing of the
artifact's files, so it is refreshed whenever the store would make the artifact.
"""

from __future__ import annotations

from typing import Any

from prefect import task

from mbpo_core.errors import GpuUnavailable, LeaseHeld, MbpoError
from mbpo_core.execution import StagePlan, execute
from mbpo_core.progress import make_progress
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.digests import digest_of
from tasks.describe import describe_status
from tasks.notes import note_failure, note_stage
from tasks.slots import device_slots
from tasks.telling import stage_progress

# Errors that pass by themselves. Settings, data and models do not mend when tried again.
TRANSIENT = (LeaseHeld, GpuUnavailable)


def perform_as_task(run: str, store: Store, plan: StagePlan) -> ArtifactRef:
    """Carry out a plan as a task run of the current flow run, and note on it what was done and why."""
    run_task = make_artifact.with_options(
        name=plan.stage,
        task_run_name=f"{plan.key.replace('/', '-')}-{plan.digest[:8]}",
        refresh_cache=plan.ref is None,
    )
    try:
        made = run_task(store, plan)  # called, not submitted: only the main thread hears a cancellation
    except MbpoError as error:
        note_failure(plan, error)
        raise
    ref = plan.ref or ArtifactRef.model_validate(made)
    note_stage(store, plan, ref, run)
    return ref


def _cache_key(context: Any, parameters: dict[str, Any]) -> str:
    return digest_of([parameters["store"].root, parameters["plan"].digest])


def _is_transient(task: Any, task_run: Any, state: Any) -> bool:
    # A plain function: retry_condition_fn given as a partial switches retries off.
    passing = isinstance(state.data, TRANSIENT)
    if passing:
        make_progress().log(f"{state.data} Trying again in a while.")
    return passing


@task(
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_cache_key,
    retries=3,
    retry_delay_seconds=[10, 30, 60],
    retry_condition_fn=_is_transient,
)
def make_artifact(store: Store, plan: StagePlan) -> dict[str, Any]:
    """Make the planned artifact unless it is there; its reference as plain JSON."""
    progress = stage_progress(plan.key)
    progress.log(f"{plan.key}: {describe_status(plan)}")
    with device_slots(store.stages[plan.stage], plan, progress.log):
        return execute(store, plan, progress).model_dump(mode="json")
