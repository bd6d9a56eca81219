"""A stage as a Prefect task. The store alone decides what is done; Prefect's cache is a view of it.

The digest is computed before the task and is its cache key. Prefect's record of a result knows nothing of the
artifact's files, so it is refreshed whenever the store would make the artifact.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from mbpo_core.errors import LeaseHeld
from mbpo_core.execution import StagePlan, execute
from mbpo_core.progress import LogProgress, make_progress
from mbpo_core.stage import ArtifactRef, Progress
from mbpo_core.store import Store
from mbpo_core.store.digests import digest_of
from tasks.describe import describe_stage, describe_status

# Errors that pass by themselves. Settings, data and models do not mend when tried again.
TRANSIENT = (LeaseHeld,)


def perform_as_task(store: Store, plan: StagePlan) -> ArtifactRef:
    """Carry out a plan as a task run of the current flow run, and note on it what was done and why."""
    run_task = make_artifact.with_options(
        name=plan.stage,
        task_run_name=f"{plan.key.replace('/', '-')}-{plan.digest[:8]}",
        refresh_cache=plan.ref is None,
    )
    # Called, not submitted: only the main thread hears a cancellation.
    made = run_task(store, plan)
    ref = plan.ref or ArtifactRef.model_validate(made)
    create_markdown_artifact(
        describe_stage(plan, store.manifest(ref.stage, ref.digest)),
        key=f"mbpo-{plan.key.replace('/', '-')}",
        description=f"{plan.key}: {plan.status}",
    )
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
    return execute(store, plan, _progress(plan)).model_dump(mode="json")


def _progress(plan: StagePlan) -> Progress:
    """A bar, or lines on standard error; with a server, lines in the run's log."""
    progress: Progress = make_progress()
    if os.environ.get("PREFECT_API_URL"):
        log, quiet = get_run_logger(), os.environ.get("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")

        def write(line: str) -> None:
            log.info(line)
            if quiet:
                print(line, file=sys.stderr, flush=True)

        progress = LogProgress(write)
    progress.log(f"{plan.key}: {describe_status(plan)}")
    return progress
