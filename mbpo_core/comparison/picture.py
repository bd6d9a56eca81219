"""The comparison as a picture: a panel a metric, for each method a dot with its interval, and a tick for each seed."""

from __future__ import annotations

import io
import math
from typing import Any

from mbpo_core.comparison.results import Comparison, titles
from mbpo_core.comparison.table import verdict

_COLORS = {"": "#5b616b", "better": "#14713a", "worse": "#b3261e"}
_COLUMNS = 3


def comparison_picture(comparison: Comparison, form: str = "svg") -> bytes:
    """Draw it; green and red as in the table, the base as a dashed line.

    Args:
        comparison: of at least one metric.
        form: "svg" or "png".
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, count = titles(comparison), len(comparison.metrics)
    rows = math.ceil(count / _COLUMNS)
    # Text stays text, ids do not change from one run to the next, and no date is written.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mbpo", "font.size": 9}):
        figure = Figure(figsize=(4.2 * _COLUMNS, rows * (0.9 + 0.26 * len(names))), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True).flatten()
        for panel, metric in zip(panels, comparison.metrics, strict=False):
            _draw(panel, comparison, metric, names)
        for panel in panels[count:]:
            panel.set_axis_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=130, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def _draw(panel: Any, comparison: Comparison, metric: str, names: dict[str, str]) -> None:
    described = comparison.summary["metrics"][metric]
    scale = 100.0 if described["unit"] == "share" else 1.0
    for place, label in enumerate(names):
        entry = comparison.summary["policies"][label].get(metric)
        if entry is None or entry["value"] is None:
            continue
        value, low, high = (scale * entry[key] for key in ("value", "low", "high"))
        color = _COLORS[verdict(comparison, label, metric)]
        seeds = [scale * one["policies"][label][metric]["value"] for one in comparison.each]
        panel.plot(seeds, [place + 0.22] * len(seeds), "|", color=color, alpha=0.6, ms=5)
        panel.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color=color, capsize=3, ms=5)
        if place == 0:
            panel.axvline(value, color="#9aa2ae", linestyle="--", linewidth=1, zorder=0)
    better = {"higher": "more is better", "lower": "less is better"}.get(described["better"] or "", "")
    panel.set_title("\n".join(filter(None, (described["label"], better))), fontsize=9)
    panel.set_yticks(range(len(names)), list(names.values()))
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="x", color="#e9e6e0")
    panel.spines[["top", "right"]].set_visible(False)
