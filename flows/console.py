"""What the commands print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mbpo_core.execution import StagePlan
from mbpo_core.explain import Explanation
from mbpo_core.progress import duration
from mbpo_core.store import Manifest
from mbpo_core.store.gc import Garbage
from mbpo_core.store.lineage import Stale
from tasks.describe import describe_cause, describe_status

_PIPE_WIDTH = 150  # where there is no terminal to fit into


def make_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for the tables in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def say(text: str) -> None:
    """A plain line; never broken, so that paths in it can be copied."""
    make_console().print(escape(text), soft_wrap=True)


def print_plans(plans: Sequence[StagePlan], title: str) -> None:
    """One line a stage: what will happen, and why."""
    table = Table(title=title, title_justify="left")
    for heading in ("stage", "what happens", "because"):
        table.add_column(heading)
    for plan in plans:
        causes = [describe_cause(cause) for cause in plan.causes]
        notes = [f"note: {warning}" for warning in plan.warnings]
        color = "green" if plan.status == "cached" else "yellow"
        table.add_row(plan.key, f"[{color}]{describe_status(plan)}[/]", escape("\n".join(causes + notes)))
    make_console().print(table)


def print_notes(plans: Sequence[StagePlan]) -> None:
    """What to know about artifacts that are reused."""
    for plan in plans:
        for warning in plan.warnings:
            say(f"Note on {plan.key}: {warning}")


def print_explanation(explanation: Explanation) -> None:
    """The plans of a run, what is stale in it, and what reuse spares."""
    print_plans(explanation.plans, f"Run {explanation.run}")
    for key in explanation.lost:
        say(f"{key}: its artifact is gone; nothing is known of it.")
    print_stale(explanation.stale, explanation.run)
    if explanation.seconds_saved >= 1:
        spared = f"Reuse spares {duration(explanation.seconds_saved)}"
        accelerator = explanation.accelerator_seconds_saved
        say(spared + (f", {duration(accelerator)} of it on an accelerator." if accelerator else "."))


def print_stale(stale: Sequence[Stale], run: str) -> None:
    """What was made from something that has been replaced since."""
    for entry in stale:
        say(f"Now stale: {entry.key} (made from an older {', '.join(entry.because)})")
    if stale:
        say("Bring them up to date with: " + " && ".join(_command(entry.key, run) for entry in stale))


def _command(key: str, run: str) -> str:
    """The command that makes a run pointer anew."""
    stage, _, part = key.partition("/")
    option = f" --round {part}" if part.isdigit() else f" --baseline {part}" if part else ""
    return f"mbpo {stage} --run {run}{option}"


def print_artifacts(made: Sequence[tuple[str, Manifest, str]], run: str) -> None:
    """Rows, dropped rows by reason, and place of each artifact (run pointer, manifest, place)."""
    table = Table(title=f"Run {run}", title_justify="left")
    for heading, justify in (("stage", "left"), ("rows", "right"), ("dropped", "left"), ("took", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("made")
    for key, manifest, _ in made:
        table.add_row(
            key,
            "\n".join(f"{count} {table}" if table != "part" else str(count) for table, count in manifest.rows.items()),
            "\n".join(f"{count} {reason}" for reason, count in manifest.dropped.items()),
            duration(manifest.seconds),
            manifest.created,
        )
    make_console().print(table)
    for key, _, place in made:
        say(f"{key}: {place}")


def print_garbage(found: Sequence[Garbage]) -> None:
    """What was, or would be, deleted."""
    for entry in found:
        say(f"{'deleted' if entry.deleted else 'unneeded'}: {entry.path} ({entry.reason}, {entry.bytes / 1e6:.1f} MB)")
    total = sum(entry.bytes for entry in found) / 1e6
    kept = [entry for entry in found if not entry.deleted]
    if not found:
        say("Every artifact is needed by a run, or too young to tell.")
    elif kept:
        say(f"{len(kept)} unneeded, {total:.1f} MB. Delete them with mbpo gc --delete.")
    else:
        say(f"Deleted {len(found)}, {total:.1f} MB.")
