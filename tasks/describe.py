"""What a stage did and why, as people read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mbpo_core.execution import Cause, CauseKind, StagePlan
from mbpo_core.markdown import escaped, fenced, table
from mbpo_core.planning import PENDING
from mbpo_core.progress import duration
from mbpo_core.store import Manifest
from mbpo_core.store.lineage import Stale

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
    """ "cached (saves 2 min 5 s)", "resumes after 3 parts", "resumes from 0123456789ab", "runs"."""
    if plan.status == "cached":
        return f"cached (saves {duration(plan.seconds_saved)})" if plan.seconds_saved >= 1 else "cached"
    if plan.status == "resumes" and plan.parts_done:
        return f"resumes after {plan.parts_done} parts"
    if plan.goes_on_from is not None:
        return f"resumes from {_short(plan.goes_on_from.digest)} (saves {duration(plan.seconds_saved)})"
    return plan.status


def describe_plans(plans: Sequence[StagePlan], title: str) -> str:
    """Markdown: one row a stage, what will happen and why, in the words of the terminal's table."""
    rows = [([plan.key], [describe_status(plan)], [*map(describe_cause, plan.causes), *_notes(plan)]) for plan in plans]
    return f"### {escaped(title)}\n\n" + table(("stage", "what happens", "because"), rows)


def describe_stage(plan: StagePlan, manifest: Manifest | None) -> str:
    """Markdown: status, causes, and what came out."""
    lines = [f"### {escaped(plan.key)}: {describe_status(plan)}", ""]
    lines += [f"- because {escaped(describe_cause(cause))}" for cause in plan.causes]
    lines += [f"- {escaped(note)}" for note in _notes(plan)]
    if manifest is not None:
        rows = ", ".join(f"{count} {name} rows" for name, count in manifest.rows.items())
        dropped = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
        lines += [f"- made: {escaped(rows)}" if rows else "- made: files", f"- dropped: {escaped(dropped or 'none')}"]
        lines += [f"- took {duration(manifest.seconds)} on {escaped(manifest.device)}", f"- digest `{plan.digest}`"]
    return "\n".join(lines)


def describe_stale(stale: Sequence[Stale], run: str) -> str:
    """Markdown: what was made from something that has been replaced since, and the commands that mend it."""
    if not stale:
        return "Nothing of the run is stale now."
    lines = [f"- {escaped(entry.key)}, made from an older {escaped(', '.join(entry.because))}" for entry in stale]
    commands = "\n".join(command_for(entry.key, run) for entry in stale)
    return "\n".join(["### Stale now", "", *lines, "", "Bring them up to date with", "", fenced(commands)])


def command_for(key: str, run: str) -> str:
    """The command that makes a run pointer anew."""
    stage, *parts = key.split("/")
    option = ""
    if stage in ("rollouts", "training") and parts:
        option = f" --round {parts[0]}" if parts[0].isdigit() else f" --baseline {parts[0]}"
    elif "images" in parts:
        option = " --images"
    return f"mbpo {stage} --run {run}{option}"


def _notes(plan: StagePlan) -> list[str]:
    return [f"note: {warning}" for warning in plan.warnings]


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text.startswith(PENDING):
        return "not made yet"
    if _DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
