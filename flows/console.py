"""What the commands print. Nothing that comes from data, files or errors is read as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mbpo_core.execution import StagePlan
from mbpo_core.explain import Explanation
from mbpo_core.progress import duration
from mbpo_core.store import Manifest
from mbpo_core.store.gc import Garbage
from mbpo_core.store.lineage import Stale
from tasks.describe import command_for, describe_cause, describe_status

_PIPE_WIDTH = 150  # where there is no terminal to fit into


def make_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for the tables in a file."""
    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=_PIPE_WIDTH)


def plain(text: object, style: str = "") -> Text:
    """Text as it is: no markup, and no control characters, which could move a terminal's cursor."""
    shown = "".join(sign if sign.isprintable() or sign in "\n\t" else f"\\x{ord(sign):02x}" for sign in str(text))
    return Text(shown, style)


def say(text: str) -> None:
    """A plain line; never broken, so that paths in it can be copied."""
    make_console().print(plain(text), soft_wrap=True)


def say_json(value: Mapping[str, Any]) -> None:
    """One JSON object, for scripts; a number that is none becomes null."""
    print(to_json(value, inf_nan_mode="null").decode())


def size(count: float) -> str:
    """Bytes as people say them: 812 B, 3.4 kB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def table(title: str, *headings: str, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `right` hold numbers."""
    made = Table(title=plain(title, "italic"), title_justify="left")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left")
    return made


def print_plans(plans: Sequence[StagePlan], title: str) -> None:
    """One line a stage: what will happen, and why."""
    made = table(title, "stage", "what happens", "because")
    for plan in plans:
        causes = [describe_cause(cause) for cause in plan.causes]
        notes = [f"note: {warning}" for warning in plan.warnings]
        color = "green" if plan.status == "cached" else "yellow"
        made.add_row(plain(plan.key), plain(describe_status(plan), color), plain("\n".join(causes + notes)))
    make_console().print(made)


def print_notes(plans: Sequence[StagePlan]) -> None:
    """What to know about artifacts that are reused."""
    for plan in plans:
        for warning in plan.warnings:
            say(f"Note on {plan.key}: {warning}")


def print_explanation(explanation: Explanation, *, as_json: bool = False) -> None:
    """The plans of a run, what is stale in it, and what reuse spares."""
    if as_json:
        say_json(explanation.model_dump(mode="json", exclude={"plans": {"__all__": {"identity", "request"}}}))
        return
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
        say("Bring them up to date with: " + " && ".join(command_for(entry.key, run) for entry in stale))


def print_artifacts(made: Sequence[tuple[str, Manifest, str]], run: str) -> None:
    """Rows, dropped rows by reason, and place of each artifact (run pointer, manifest, place)."""
    shown = table(f"Run {run}", "stage", "rows", "dropped", "took", "made", right=("rows", "took"))
    for key, manifest, _ in made:
        rows = "\n".join(counted_rows(manifest, main=""))
        dropped = "\n".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
        shown.add_row(*map(plain, (key, rows, dropped, duration(manifest.seconds), manifest.created)))
    make_console().print(shown)
    for key, _, place in made:
        say(f"{key}: {place}")


def counted_rows(manifest: Manifest, main: str = "rows") -> list[str]:
    """ "1600 rows", "200 scored": the main table's rows, and those of others by their names."""
    return [f"{count} {main if name == 'part' else name}".strip() for name, count in manifest.rows.items()]


def print_garbage(found: Sequence[Garbage], *, as_json: bool = False) -> None:
    """What was, or would be, deleted."""
    total = sum(entry.bytes for entry in found)
    if as_json:
        say_json({"found": [entry.model_dump(mode="json") for entry in found], "bytes": total})
        return
    for entry in found:
        say(f"{'deleted' if entry.deleted else 'unneeded'}: {entry.path} ({entry.reason}, {size(entry.bytes)})")
    kept = [entry for entry in found if not entry.deleted]
    if not found:
        say("Every artifact is needed by a run, or too young to tell.")
    elif kept:
        say(f"{len(kept)} unneeded, {size(sum(entry.bytes for entry in kept))}. Delete them with mbpo gc --delete.")
    else:
        say(f"Deleted {len(found)}, {size(total)}.")
