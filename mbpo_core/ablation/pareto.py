"""One metric against another: what each way of training pays for what it gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.ablation.pictures import LINE, MARKS, drawn, heading, plain, tidy
from mbpo_core.ablation.results import Results, shown

_RING = "#14713a"

Point = tuple[float, float]


def front(points: Mapping[str, Point]) -> list[str]:
    """The points than which none is better in one coordinate and no worse in the other, from left to right.

    Args:
        points: by name; more is better in both coordinates.
    """
    best = [
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def pareto_picture(results: Results, form: str = "svg") -> bytes | None:
    """The first plotted metric against the second, a point a cell, with its intervals; the star is the base.

    Cells that differ only in the grid's `pareto` factors have one color, and a line joins those of them that none of
    the others beats in both metrics. A ring marks the cells that no cell at all beats. None where there are not two
    metrics.

    Args:
        results: of the grid.
        form: "svg" or "png".
    """
    if len(results.plotted) < 2:
        return None
    up, across = results.plotted[:2]
    ends = {
        cell: _ends(results, across, entries[across]) + _ends(results, up, entries[up])
        for cell, entries in results.summary["policies"].items()
        if all(metric in entries and entries[metric]["value"] is not None for metric in (across, up))
    }
    if not ends:
        return None

    def draw(axes: Any) -> None:
        _draw(axes[0], results, ends)

    return drawn(draw, 1, max(5.2, 0.6 + 0.17 * len(_series(results, list(ends)))), form, width=8.4)


def _draw(axis: Any, results: Results, ends: Mapping[str, tuple[float, ...]]) -> None:
    """Fill the panel; `ends` are value, low and high across, then up, of each cell."""
    up, across = results.plotted[:2]
    points = {cell: (one[0], one[3]) for cell, one in ends.items()}
    for number, (name, cells) in enumerate(_series(results, list(points)).items()):
        style = {"marker": "*", "color": "black", "ms": 11} if number == 0 else {"marker": MARKS[number % len(MARKS)]}
        [line] = axis.plot(
            *zip(*(points[cell] for cell in cells), strict=True), linewidth=0, label=plain(name), **style
        )
        joined = front({cell: _upward(results, points[cell]) for cell in cells})
        axis.plot(*zip(*(points[cell] for cell in joined), strict=True), linewidth=1, color=line.get_color())
        for cell in cells:
            x, left, right, y, low, high = ends[cell]
            axis.plot([left, right], [y, y], color=LINE, linewidth=0.5, zorder=0)
            axis.plot([x, x], [low, high], color=LINE, linewidth=0.5, zorder=0)
    rings = [points[cell] for cell in front({cell: _upward(results, point) for cell, point in points.items()})]
    axis.scatter(*zip(*rings, strict=True), s=110, facecolors="none", edgecolors=_RING)
    axis.set_xlabel(heading(results, across).replace("\n", ", "))
    axis.set_ylabel(heading(results, up).replace("\n", ", "))
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    tidy(axis)


def _ends(results: Results, metric: str, entry: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = shown(dict(entry))
    scale = results.scale(metric)
    return scale * value, scale * low, scale * high


def _upward(results: Results, point: Point) -> Point:
    """The point with its sign turned where less is better."""
    up, across = results.plotted[:2]
    x, y = (-1 if results.summary["metrics"][metric]["better"] == "lower" else 1 for metric in (across, up))
    return x * point[0], y * point[1]


def _series(results: Results, cells: Sequence[str]) -> dict[str, list[str]]:
    """Cells of one color, by what they have in common; the base first, alone."""
    series: dict[str, list[str]] = {}
    for cell in cells:
        levels = results.levels.get(cell)
        if levels is None or not results.pareto:
            name = results.title(cell)
        else:
            fixed = [(factor, level) for factor, level in levels.items() if factor not in results.pareto]
            name = ", ".join(level for factor, level in fixed if len(results.factors[factor]) > 1) or "all"
        series.setdefault(name, []).append(cell)
    return series
