"""Pictures of a grid's results; text stays text, and the same numbers make the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

from mbpo_core.ablation.results import Results, shown
from mbpo_core.ablation.table import verdict

COLORS = {"": "#5b616b", "better": "#14713a", "worse": "#b3261e"}
LINE = "#9aa2ae"
MARKS = "osD^vPX<>"
_COLUMNS = 3


def drawn(
    draw: Callable[[Any], None],
    count: int,
    height: float,
    form: str,
    *,
    sharex: bool = False,
    sharey: bool = False,
    width: float = 4.2,
) -> bytes:
    """A figure of panels, three a row, as "svg" or "png".

    Args:
        draw: fills the panels, a flat array of axes of which the first `count` are used.
        count: panels.
        height: of a panel, inches.
        form: of the file.
        sharex: panels have one horizontal axis.
        sharey: panels have one vertical axis.
        width: of a panel, inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mbpo", "font.size": 9}):
        figure = Figure(figsize=(width * columns, rows * height), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).flatten()
        draw(panels)
        for panel in panels[count:]:
            panel.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=130, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def cells_picture(results: Results, form: str = "svg") -> bytes:
    """A panel a headline metric, for each cell a dot with its interval, and a tick for each seed.

    Green and red as in the table; the base is the dashed line.
    """

    def draw(panels: Any) -> None:
        for panel, metric in zip(panels, results.metrics, strict=False):
            _draw_metric(panel, results, metric)

    height = 0.9 + 0.26 * len(results.cells)
    return drawn(draw, len(results.metrics), height, form, sharey=True)


def _draw_metric(panel: Any, results: Results, metric: str) -> None:
    scale = results.scale(metric)
    for place, cell in enumerate(results.cells):
        entry = results.summary["policies"][cell].get(metric)
        if entry is None or entry["value"] is None:
            continue
        value, low, high = (scale * number for number in shown(entry))
        color = COLORS[verdict(results, cell, metric)]
        seeds = [summary["policies"][cell].get(metric, {}).get("value") for summary in results.each.values()]
        ticks = [scale * one for one in seeds if one is not None]
        panel.plot(ticks, [place + 0.22] * len(ticks), "|", color=color, alpha=0.6, ms=5)
        # A bootstrap interval of a few questions may lie beside its value.
        panel.errorbar(
            value,
            place,
            xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            fmt="o",
            color=color,
            capsize=3,
            ms=5,
        )
        if place == 0:
            panel.axvline(value, color=LINE, linestyle="--", linewidth=1, zorder=0)
    panel.set_title(heading(results, metric), fontsize=9)
    panel.set_yticks(range(len(results.cells)), [plain(results.title(cell)) for cell in results.cells])
    panel.set_ylim(len(results.cells) - 0.5, -0.5)
    tidy(panel, "x")


def heading(results: Results, metric: str) -> str:
    """A metric's label, and which way is better."""
    described = results.summary["metrics"][metric]
    better = {"higher": "more is better", "lower": "less is better"}.get(described["better"] or "", "")
    return "\n".join(filter(None, (plain(described["label"]), better)))


def plain(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def tidy(panel: Any, axis: str = "both") -> None:
    """A light grid, and no frame above and to the right."""
    panel.grid(axis=axis, color="#e9e6e0")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
