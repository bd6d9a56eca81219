"""What the testbeds of one grid say together: the same cells on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mbpo_core.ablation.pictures import LINE, MARKS, drawn, heading, plain, tidy
from mbpo_core.ablation.results import Results, shown
from mbpo_core.ablation.table import cell_text, sentence, verdict
from mbpo_core.pages import data_uri, load_template
from mbpo_core.stage import BASE

_CAPTION = "Each testbed a band, each cell a mark with its interval; the star is the base."

Table = tuple[str, list[str], list[tuple[str, list[tuple[str, str]]]]]


def tables(several: Sequence[Results]) -> list[Table]:
    """For each plotted metric its heading, the cells' titles, and for each testbed the texts and verdicts.

    Args:
        several: one of each testbed, of the same cells. A cell that one of them lacks has a dash there.
    """
    first = several[0]
    cells = list(dict.fromkeys(cell for results in several for cell in results.cells))
    return [
        (
            first.summary["metrics"][metric]["label"],
            [first.title(cell) for cell in cells],
            [
                (results.testbed, [(_text(results, cell, metric), _verdict(results, cell, metric)) for cell in cells])
                for results in several
            ],
        )
        for metric in first.plotted
    ]


def overview_markdown(several: Sequence[Results]) -> str:
    """A table a plotted metric, a row a testbed, a column a cell; bold where the difference to the base is certain."""
    parts = []
    for title, cells, rows in tables(several):
        lines = [f"**{title}**", "", f"| testbed | {' | '.join(cells)} |", f"|---|{'---:|' * len(cells)}"]
        for testbed, marked in rows:
            texts = [f"**{text}**" if found else text for text, found in marked]
            lines.append(f"| {testbed} | {' | '.join(texts)} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, sentence(several[0]).capitalize()])


def overview_page(several: Sequence[Results], title: str, picture: bytes, commands: Sequence[str]) -> str:
    """The tables and the picture as HTML, with links to the testbeds' own pages in the folders beside it."""
    return load_template("mbpo_core.ablation", "overview.html.j2").render(
        title=title,
        sentence=sentence(several[0]).capitalize(),
        picture=data_uri(picture),
        caption=_CAPTION,
        tables=tables(several),
        commands=commands,
    )


def overview_picture(several: Sequence[Results], form: str = "svg") -> bytes:
    """A panel a plotted metric: testbeds from top to bottom, in each a mark a cell."""
    metrics = several[0].plotted
    cells = list(dict.fromkeys(cell for results in several for cell in results.cells))
    height = 1.3 + len(several) * (0.16 + 0.075 * len(cells))

    def draw(panels: Any) -> None:
        for panel, metric in zip(panels, metrics, strict=False):
            _draw(panel, several, cells, metric)
        handles, labels = panels[0].get_legend_handles_labels()
        panels[0].figure.legend(handles, labels, loc="outside lower center", ncols=min(len(cells), 6), frameon=False)

    return drawn(draw, len(metrics), height, form, sharey=True)


def _draw(panel: Any, several: Sequence[Results], cells: Sequence[str], metric: str) -> None:
    step = 0.8 / len(cells)
    for number, cell in enumerate(cells):
        style = {"marker": "*", "color": "black", "ms": 8} if cell == BASE else {"marker": MARKS[number % len(MARKS)]}
        places, values, below, above = [], [], [], []
        for place, results in enumerate(several):
            entry = results.summary["policies"].get(cell, {}).get(metric)
            if entry is None or entry["value"] is None:
                continue
            value, low, high = (results.scale(metric) * one for one in shown(entry))
            places.append(place - 0.4 + step * (number + 0.5))
            values.append(value)
            below.append(max(0.0, value - low))
            above.append(max(0.0, high - value))
        label = plain(several[0].title(cell))
        panel.errorbar(
            values, places, xerr=[below, above], linewidth=0, elinewidth=0.8, label=label, **({"ms": 4} | style)
        )
    for place in range(1, len(several)):
        panel.axhline(place - 0.5, color=LINE, linewidth=0.5)
    panel.set_yticks(range(len(several)), [plain(results.testbed) for results in several])
    panel.set_ylim(len(several) - 0.5, -0.5)
    panel.set_title(heading(several[0], metric), fontsize=9)
    tidy(panel, "x")


def _text(results: Results, cell: str, metric: str) -> str:
    return cell_text(results, cell, metric) if cell in results.cells else "–"


def _verdict(results: Results, cell: str, metric: str) -> str:
    return verdict(results, cell, metric) if cell in results.cells else ""
