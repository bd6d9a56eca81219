"""One metric against another: what each way of training pays for what it gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.ablation.pictures import LINE, MARKS, drawn, heading, plain, tidy
from mbpo_core.ablation.results import Results, shown
from mbpo_core.methods import title_of
from mbpo_core.stage import BASE

_RING, _INK, _OTHERS = "#14713a", "#5b616b", "#c9ccd2"
_STAR: dict[str, Any] = {"marker": "*", "color": "black", "ms": 11}

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

    Cells that differ only in the grid's `pareto` factors are one series, and a line joins those of them that none of
    the others beats in both metrics. Each series has a panel, in which all other cells are grey and its own have the
    color of their level of the first such factor and the mark of that of the others; a grid without such factors has
    one panel, and a mark for each cell. A ring marks the cells that no cell at all beats. None where there are not two
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
    series = _series(results, list(ends))
    if not series:
        return None
    if not results.pareto:
        return drawn(
            lambda axes: _draw_all(axes[0], results, series, ends),
            1,
            max(5.2, 0.6 + 0.17 * len(series)),
            form,
            width=8.4,
        )
    panels = {name: cells for name, cells in series.items() if cells != [BASE]}

    def draw(axes: Any) -> None:
        for axis, (name, cells) in zip(axes, panels.items(), strict=False):
            _draw_series(axis, results, name, cells, ends)
        axes[0].figure.supxlabel(heading(results, across).replace("\n", ", "), fontsize=9)
        axes[0].figure.supylabel(heading(results, up).replace("\n", ", "), fontsize=9)
        _name_levels(axes[0].figure, results)

    return drawn(draw, len(panels), 2.9, form, sharex=True, sharey=True)


def _draw_all(
    axis: Any, results: Results, series: Mapping[str, Sequence[str]], ends: Mapping[str, tuple[float, ...]]
) -> None:
    """Everything in one panel; `ends` are value, low and high across, then up, of each cell."""
    points = {cell: (one[0], one[3]) for cell, one in ends.items()}
    for number, (name, cells) in enumerate(series.items()):
        style = _STAR if cells == [BASE] else {"marker": MARKS[number % len(MARKS)]}
        axis.plot(*_columns(points, cells), linewidth=0, label=plain(name), **style)
        _draw_ends(axis, [ends[cell] for cell in cells])
    _ring(axis, results, points, list(points))
    up, across = results.plotted[:2]
    axis.set_xlabel(heading(results, across).replace("\n", ", "))
    axis.set_ylabel(heading(results, up).replace("\n", ", "))
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    tidy(axis)


def _draw_series(
    axis: Any, results: Results, name: str, cells: Sequence[str], ends: Mapping[str, tuple[float, ...]]
) -> None:
    """One series, named by its levels, before all other cells in grey."""
    points = {cell: (one[0], one[3]) for cell, one in ends.items()}
    axis.plot(*_columns(points, [cell for cell in points if cell != BASE]), ".", color=_OTHERS, ms=4, zorder=0)
    axis.plot(*_columns(points, [BASE]), linewidth=0, **_STAR)
    _draw_ends(axis, [ends[cell] for cell in cells])
    joined = front({cell: _upward(results, points[cell]) for cell in cells})
    axis.plot(*_columns(points, joined), linewidth=1, color=_INK)
    colors, marks = _styles(results)
    for cell in cells:
        first, others = _levels(results, cell)
        axis.plot(*_columns(points, [cell]), marks[others], color=colors[first], ms=5)
    _ring(axis, results, points, cells)
    axis.set_title(plain(name), fontsize=9)
    axis.tick_params(labelbottom=True)  # also where no panel is below
    tidy(axis)


def _levels(results: Results, cell: str) -> tuple[str, str]:
    """A cell's level of the first of the grid's `pareto` factors, and of the others."""
    first, *others = (results.levels[cell][factor] for factor in results.pareto)
    return first, ", ".join(others)


def _styles(results: Results) -> tuple[dict[str, str], dict[str, str]]:
    """A color for each level of the first of the `pareto` factors, a mark for each of the others."""
    firsts, others = zip(*(_levels(results, cell) for cell in results.levels), strict=True)
    colors = {level: f"C{number % 10}" for number, level in enumerate(dict.fromkeys(firsts))}
    marks = {level: MARKS[number % len(MARKS)] for number, level in enumerate(dict.fromkeys(others))}
    return colors, marks


def _name_levels(figure: Any, results: Results) -> None:
    """One legend over all panels."""
    from matplotlib.lines import Line2D

    colors, marks = _styles(results)
    first, *others = results.pareto
    named: list[tuple[str, dict[str, Any]]] = [
        (f"{first} {level}", {"color": color, "marker": "o"}) for level, color in colors.items()
    ]
    if others:
        named += [
            (f"{', '.join(others)} {level}", {"color": _INK, "marker": mark, "markerfacecolor": "none"})
            for level, mark in marks.items()
        ]
    lines = [Line2D([], [], linewidth=0, ms=5, label=plain(name), **style) for name, style in named]
    fitting = int(figure.get_figwidth() // 1.4)
    figure.legend(handles=lines, loc="outside upper center", ncols=fitting, fontsize=8, frameon=False)


def _draw_ends(axis: Any, several: Sequence[tuple[float, ...]]) -> None:
    for x, left, right, y, low, high in several:
        axis.plot([left, right], [y, y], color=LINE, linewidth=0.5, zorder=0)
        axis.plot([x, x], [low, high], color=LINE, linewidth=0.5, zorder=0)


def _ring(axis: Any, results: Results, points: Mapping[str, Point], cells: Sequence[str]) -> None:
    """Around those of the cells that no cell at all beats."""
    best = [cell for cell in front({cell: _upward(results, point) for cell, point in points.items()}) if cell in cells]
    if best:
        axis.scatter(*_columns(points, best), s=110, facecolors="none", edgecolors=_RING)


def _columns(points: Mapping[str, Point], cells: Sequence[str]) -> tuple[list[float], list[float]]:
    return [points[cell][0] for cell in cells], [points[cell][1] for cell in cells]


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
    """Cells by what they have in common; the base first, alone."""
    series: dict[str, list[str]] = {}
    for cell in cells:
        levels = results.levels.get(cell)
        if levels is None or not results.pareto:
            name = results.title(cell)
        else:
            fixed = [(factor, level) for factor, level in levels.items() if factor not in results.pareto]
            words = [
                title_of(level) if factor == "method" else level
                for factor, level in fixed
                if len(results.factors[factor]) > 1
            ]
            name = ", ".join(words) or "all"
        series.setdefault(name, []).append(cell)
    return series
