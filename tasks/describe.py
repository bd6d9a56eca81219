"""What a stage did and why, as people read it."""

from __future__ import annotations

import re
from typing import Any

from mbpo_core.execution import Cause, CauseKind, StagePlan
from mbpo_core.planning import PENDING
from mbpo_core.progress import duration
from mbpo_core.store import Manifest

_WIDTH = 40
_DIGEST = re.compile("[0-9a-f]{64}")


def describe_cause(cause: Cause) -> str:
    """ "CONFIG negatives.epsilon 0.0314 → 0.0627"."""
    if cause.kind == CauseKind.MISSING and cause.old is None:
        return "MISSING, never made"
    if cause.old is None and cause.new is None:
        return f"{cause.kind} {cause.field}"
    return f"{cause.kind} {cause.field} {_short(cause.old)} → {_short(cause.new)}"


def describe_status(plan: StagePlan) -> str:
    """ "cached (saves 2 min 5 s)", "resumes after 3 parts", "runs"."""
    if plan.status == "cached":
        return f"cached (saves {duration(plan.seconds_saved)})" if plan.seconds_saved >= 1 else "cached"
    if plan.status == "resumes" and plan.parts_done:
        return f"resumes after {plan.parts_done} parts"
    return plan.status


def describe_stage(plan: StagePlan, manifest: Manifest | None) -> str:
    """Markdown: status, causes, and what came out."""
    lines = [f"### {plan.key}: {describe_status(plan)}", ""]
    lines += [f"- because {describe_cause(cause)}" for cause in plan.causes]
    lines += [f"- note: {warning}" for warning in plan.warnings]
    if manifest is not None:
        rows = ", ".join(f"{count} {table} rows" for table, count in manifest.rows.items())
        dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
        lines += [f"- made: {rows}" if rows else "- made: files", f"- dropped: {dropped or 'none'}"]
        lines += [f"- took {duration(manifest.seconds)} on {manifest.device}", f"- digest `{plan.digest}`"]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text.startswith(PENDING):
        return "not made yet"
    if _DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
