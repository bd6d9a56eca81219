"""The comparison as a table: in the terminal, and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbpo_core.comparison.results import Comparison, half_width, titles
from mbpo_core.evaluation.summary import Entry

if TYPE_CHECKING:
    from rich.table import Table


def comparison_table(comparison: Comparison) -> Table:
    """Methods as rows, headline metrics as columns; green and red where the difference to the base is certain."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{comparison.name}: {sentence(comparison)}", title_justify="left")
    table.add_column("method", no_wrap=True)
    for heading in headings(comparison):
        table.add_column(heading, justify="right")
    for label, title in titles(comparison).items():
        cells = [_colored(comparison, label, metric) for metric in comparison.metrics]
        table.add_row(escape(title), *cells, *_spent(comparison, label))
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """The same as GitHub Markdown, with what the numbers are as its last line."""
    heads = ["method", *headings(comparison)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for label, title in titles(comparison).items():
        cells = [
            f"**{text}**" if verdict(comparison, label, metric) else text
            for metric in comparison.metrics
            for text in [cell(comparison, label, metric)]
        ]
        lines.append(f"| {' | '.join([title, *cells, *_spent(comparison, label)])} |")
    return "\n".join(
        [*lines, "", f"{sentence(comparison)} Bold: the interval of the difference to the base excludes 0."]
    )


def headings(comparison: Comparison) -> list[str]:
    """Labels of the metrics, then of what was spent."""
    described = comparison.summary["metrics"]
    return [*(described[name]["label"] for name in comparison.metrics), "steps", "tokens trained", "tokens sampled"]


def sentence(comparison: Comparison) -> str:
    """What the numbers are."""
    about = comparison.summary["about"]
    level = f"{100 * about['confidence']:g} %"
    interval = f"mean of {comparison.seeds} seeds ± half the {level} t-interval over seeds"
    if comparison.seeds == 1:
        interval = f"one seed ± the larger half of the {level} interval over questions"
    budget = f"; {comparison.budget:,} token positions forward and backward each" if comparison.budget else ""
    return f"percent, {interval}{budget}."


def cell(comparison: Comparison, label: str, metric: str) -> str:
    """ "59.1 ±5.2" in percent, or in the metric's own unit; a dash where there is no number."""
    entry: Entry | None = comparison.summary["policies"][label].get(metric)
    if entry is None or entry["value"] is None:
        return "–"
    scale = 100.0 if comparison.summary["metrics"][metric]["unit"] == "share" else 1.0
    return f"{scale * entry['value']:.1f} ±{scale * half_width(entry):.1f}"


def verdict(comparison: Comparison, label: str, metric: str) -> str:
    """ "better" or "worse" than the base where the interval of the difference excludes zero, else ""."""
    entry: Entry | None = comparison.summary["differences"].get(label, {}).get(metric)
    better = comparison.summary["metrics"][metric]["better"]
    if entry is None or entry["value"] is None or not better or entry["low"] <= 0 <= entry["high"]:
        return ""
    return "better" if (entry["value"] > 0) == (better == "higher") else "worse"


def _colored(comparison: Comparison, label: str, metric: str) -> str:
    text, color = cell(comparison, label, metric), {"better": "green", "worse": "red"}
    found = verdict(comparison, label, metric)
    return f"[{color[found]}]{text}[/]" if found else text


def _spent(comparison: Comparison, label: str) -> list[str]:
    spent = comparison.spent.get(label)
    if spent is None:
        return ["–"] * 3
    return [f"{spent.steps:.0f}", f"{spent.positions / 1000:,.0f} k", f"{spent.sampled_tokens / 1000:,.0f} k"]
