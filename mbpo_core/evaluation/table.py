"""The result as people read it: a table in the terminal, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

from mbpo_core.evaluation.entries import Entry
from mbpo_core.evaluation.summary import Summary, in_order
from mbpo_core.methods import title_of

_DECIMALS = {"nats": 3}


def summary_table(summary: Summary, *, full: bool = False, title: str = "Held-out questions") -> Table:
    """A rich table: metrics as rows, policies as columns, and the last policy minus the base.

    Args:
        summary: of `summarize` or `combine_summaries`.
        full: all metrics instead of the headline ones.
        title: printed above.
    """
    from rich.markup import escape
    from rich.table import Table

    summary = in_order(summary)
    labels = list(summary["policies"])
    table = Table(title=title, caption=caption(summary), title_justify="left", caption_justify="left")
    table.add_column("metric")
    for label in labels:
        table.add_column(title_of(label), justify="right")
    for label in list(summary["differences"])[-1:]:
        table.add_column(f"{title_of(label)} − {labels[0]}", justify="right")
    group = None
    for name in shown_metrics(summary, full=full):
        described = summary["metrics"][name]
        if full and described["group"] != group:
            group = described["group"]
            table.add_section()
            table.add_row(f"[bold]{escape(group)}[/bold]")
        cells = list(_cells(summary, name))
        if summary["differences"]:
            cells[-1] = _colored(summary, name, cells[-1])
        table.add_row(escape(described["label"]), *cells)
    return table


def summary_markdown(summary: Summary, *, full: bool = False) -> str:
    """The same table as GitHub Markdown, intervals included, with its caption as the last paragraph."""
    summary = in_order(summary)
    labels = list(summary["policies"])
    heads = ["metric", *(title_of(label) for label in labels)]
    heads += [f"{title_of(label)} − {labels[0]}" for label in list(summary["differences"])[-1:]]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name in shown_metrics(summary, full=full):
        label = str(summary["metrics"][name]["label"]).replace("|", "\\|")
        lines.append(f"| {' | '.join([label, *_cells(summary, name)[: len(heads) - 1]])} |")
    return "\n".join([*lines, "", caption(summary), ""])


def shown_metrics(summary: Summary, *, full: bool) -> list[str]:
    """Names of all metrics, or of the headline ones, in the summary's order."""
    return [name for name, described in summary["metrics"].items() if full or described["headline"]]


def caption(summary: Summary) -> str:
    """One sentence that says what the brackets are."""
    about = summary["about"]
    level = f"{100 * about['confidence']:g} %"
    if "seeds" in about:
        return f"Percent; mean of {about['seeds']} seeds with the {level} t-interval over seeds."
    by = " and by ".join(["question", *([", ".join(about["clusters"])] if about.get("clusters") else [])])
    pooled = f" of {about['pooled']} seeds" if "pooled" in about else ""
    return (
        f"Percent with {level} intervals: Wilson for rates, bootstrap by {by} for other ratios and for differences "
        f"(paired); {about['questions']} questions{pooled}."
    )


def format_entry(entry: Entry | None, unit: str = "share", *, signed: bool = False) -> str:
    """One cell: "57.3 [54.2, 60.4]" in percent, or in the metric's own unit; a dash where there is no number."""
    if entry is None or entry["value"] is None:
        return "–"
    scale = 100.0 if unit == "share" else 1.0
    value, low, high = (scale * number for number in _numbers(entry))
    form = f"{'+' if signed else ''}.{_DECIMALS.get(unit, 1)}f"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _numbers(entry: Entry) -> tuple[float, float, float]:
    return entry["value"], entry["low"], entry["high"]


def _cells(summary: Summary, name: str) -> Sequence[str]:
    """A cell a policy, then the last policy's difference (empty where there is only one policy)."""
    unit = summary["metrics"][name]["unit"]
    cells = [format_entry(entries.get(name), unit) for entries in summary["policies"].values()]
    last = _last_difference(summary)
    return cells if last is None else [*cells, format_entry(last.get(name), unit, signed=True)]


def _last_difference(summary: Summary) -> dict[str, Any] | None:
    """The entries of the last policy minus the base; None where there is only one policy."""
    differences: list[dict[str, Any]] = list(summary["differences"].values())
    return differences[-1] if differences else None


def _colored(summary: Summary, name: str, text: str) -> str:
    """Green or red where the interval of the last policy's difference excludes zero."""
    entry = (_last_difference(summary) or {}).get(name)
    better = summary["metrics"][name]["better"]
    if entry is None or entry["value"] is None or not better or entry["low"] <= 0 <= entry["high"]:
        return text
    good = (entry["value"] > 0) == (better == "higher")
    return f"[{'green' if good else 'red'}]{text}[/]"
