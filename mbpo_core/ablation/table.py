"""The results as a table: in the terminal, and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbpo_core.ablation.results import Results, certain, shown
from mbpo_core.evaluation.entries import Entry
from mbpo_core.progress import duration
from mbpo_core.stage import BASE

if TYPE_CHECKING:
    from rich.table import Table


def results_table(results: Results) -> Table:
    """Cells as rows, headline metrics as columns; green and red where the difference to the base is certain."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{results.testbed}: {sentence(results)}", title_justify="left")
    table.add_column("cell", no_wrap=True)
    for heading in [*headings(results), "tokens trained"]:
        table.add_column(heading, justify="right")
    for cell in results.cells:
        texts = [_colored(results, cell, metric) for metric in results.metrics]
        table.add_row(escape(results.title(cell)), *texts, cost_texts(results, cell)[1])
    return table


def results_markdown(results: Results) -> str:
    """The same as GitHub Markdown, with what the numbers are as its last line."""
    heads = ["cell", *headings(results), *COST_HEADINGS]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for cell in results.cells:
        texts = [
            f"**{text}**" if verdict(results, cell, metric) else text
            for metric in results.metrics
            for text in [cell_text(results, cell, metric)]
        ]
        lines.append(f"| {' | '.join([results.title(cell), *texts, *cost_texts(results, cell)])} |")
    bold = "Bold: the intervals of the difference to the base, over questions and over seeds, exclude 0."
    return "\n".join([*lines, "", f"{sentence(results).capitalize()} {bold}"])


COST_HEADINGS = ("steps", "tokens trained", "tokens sampled", "attack steps", "CPU time")


def headings(results: Results) -> list[str]:
    """Labels of the headline metrics."""
    described = results.summary["metrics"]
    return [described[name]["label"] for name in results.metrics]


def sentence(results: Results) -> str:
    """What the numbers are."""
    level = f"{100 * results.summary['about']['confidence']:g} %"
    count = len(results.seeds)
    if count == 1:
        return f"percent, one seed ± the larger half of the {level} interval over questions."
    return f"percent, {count} seeds ± half the {level} t-interval over seeds."


def cell_text(results: Results, cell: str, metric: str) -> str:
    """ "59.1 ±5.2" in percent, or in the metric's own unit; a dash where there is no number."""
    entry: Entry | None = results.summary["policies"][cell].get(metric)
    if entry is None or entry["value"] is None:
        return "–"
    scale, (value, low, high) = results.scale(metric), shown(entry)
    return f"{scale * value:.1f} ±{scale * max(value - low, high - value):.1f}"


def verdict(results: Results, cell: str, metric: str, *, baseline: bool = False) -> str:
    """ "better" or "worse" than the base (or the baseline) where both intervals of the difference exclude zero."""
    differences = results.against if baseline else results.summary["differences"]
    entry: Entry | None = differences.get(cell, {}).get(metric)
    better = results.summary["metrics"][metric]["better"]
    if entry is None or entry["value"] is None or not better or not certain(entry):
        return ""
    return "better" if (entry["value"] > 0) == (better == "higher") else "worse"


def cost_texts(results: Results, cell: str) -> list[str]:
    """What the cell took, a seed, under `COST_HEADINGS`; the base was only asked."""
    cost = results.cost(cell)
    if cell == BASE:
        return ["–", "–", "–", "–", duration(cost.total_cpu_seconds)]
    counts = (cost.train_tokens, cost.sampled_tokens, cost.attack_passes)
    return [f"{cost.steps:.0f}", *(f"{count / 1000:,.0f} k" for count in counts), duration(cost.total_cpu_seconds)]


def _colored(results: Results, cell: str, metric: str) -> str:
    text, color = cell_text(results, cell, metric), {"better": "green", "worse": "red"}
    found = verdict(results, cell, metric)
    return f"[{color[found]}]{text}[/]" if found else text
