"""promotion: the run's new checkpoint is published if its evaluation allows it."""

from __future__ import annotations

import logging
import os
import sys

from mbpo_core.evaluation.table import format_entry
from mbpo_core.markdown import escaped, table
from mbpo_core.progress import make_progress
from mbpo_core.promotion import check_metrics, decide
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.store.promotions import Comparison, Decision, publish, record
from tasks.markdown import page_key
from tasks.run import Run, expect

REFUSED = "mbpo.promotion.refused"
"""The Prefect event that a refusal raises; automations forward it."""


def promote(run: Run, evaluation: ArtifactRef, policy: PolicyRef) -> None:
    """Point the run's `promoted` to the checkpoint, or say why not; a refusal fails nothing.

    Args:
        evaluation: of the checkpoint.
        policy: the run's newest checkpoint.

    Raises:
        ConfigError: promotion.metrics names something that no evaluation measures; found while planning.
        StoreError: the evaluation, or what was decided before, cannot be read.
    """
    check_metrics(run.config.promotion.metrics)
    if run.perform is expect or not run.config.promotion.metrics:
        return
    decision = decide(run.store, run.config, evaluation, policy)
    if decision is not None:
        record(run.store, run.config.run, decision)
        _tell(run.config.run, decision)
    publish(run.store, run.config.run)


def describe_decision(run: str, decision: Decision) -> str:
    """Markdown: what was decided, why, and each metric with its interval."""
    verb = "promoted" if decision.promotes else "not promoted"
    rows: list[list[list[str]]] = [
        [[entry.label], [_number(entry.promoted)], [_number(entry.candidate)], [_difference(entry)], [entry.verdict]]
        for entry in decision.comparisons
    ]
    lines = [
        f"### Run {escaped(run)}: checkpoint `{decision.candidate.digest[:12]}` {verb}",
        "",
        f"- because {escaped(decision.reason)}",
        f"- {decision.questions} questions, intervals at {100 * decision.confidence:g} %",
        "",
        table(["metric, percent", "promoted", "candidate", "difference", "verdict"], rows) if rows else "",
    ]
    return "\n".join(lines)


def _tell(run: str, decision: Decision) -> None:
    """In the log; inside a flow run also on its page, and a refusal as an event."""
    verb = "promoted" if decision.promotes else "not promoted"
    line = f"promotion: {decision.candidate.digest[:12]} is {verb}: {decision.reason}"
    if not _in_flow() or os.environ.get("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):  # otherwise the run's log shows it
        make_progress().log(line)
    if _in_flow():
        from prefect import get_run_logger

        from tasks.notes import best_effort

        get_run_logger().log(logging.INFO if decision.promotes else logging.WARNING, line)
        best_effort(_note)(run, decision, line)
        if not decision.promotes:
            best_effort(_raise_event)(run, decision)


def _note(run: str, decision: Decision, line: str) -> None:
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(describe_decision(run, decision), key=page_key("promotion"), description=line[:200])


def _raise_event(run: str, decision: Decision) -> None:
    from prefect.events import emit_event

    worst = next(iter(decision.worse), None)
    payload = {
        "run": run,
        "reason": decision.reason,
        "checkpoint": decision.candidate.uri,
        "metric": worst.metric if worst else None,
        "difference": worst.difference if worst else None,
        "interval": [worst.low, worst.high] if worst else None,
    }
    emit_event(REFUSED, {"prefect.resource.id": f"mbpo.run.{run}", "prefect.resource.name": run}, payload=payload)


def _in_flow() -> bool:
    """Inside a flow run, without importing Prefect where nobody has."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def _difference(entry: Comparison) -> str:
    return format_entry({"value": entry.difference, "low": entry.low, "high": entry.high}, signed=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
