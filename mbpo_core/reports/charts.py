"""The page's charts: lines, histograms, bars, and values with intervals.

matplotlib draws them; `svg.element` makes them follow light and dark. A series has the style class `s-<name>` (see
`series_class`), from which the style sheet gives it its colour and dash.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mbpo_core.methods import METHODS
from mbpo_core.reports.svg import INK, PANEL, SERIES, drawing, element, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.0, 2.8  # inches of 72 units: on a phone a unit is about a pixel
BINS = 30
NAMED_SERIES: tuple[str, ...] = ("base", "sft", "dpo", "trained")
OTHER_SERIES = 8  # classes for all other labels: four colours, each with two dashes and shapes
_SHAPES = {"s-base": "o", "s-trained": "o", "s-sft": "s", "s-dpo": "D"}


@dataclass(frozen=True)
class Series:
    """A line: points in order of x; None in y leaves a gap."""

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]

    @property
    def numbers(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if y is not None and math.isfinite(y)]


@dataclass(frozen=True)
class Chart:
    """A drawing with what stands around it; `empty` without a value to draw."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""
    empty: bool = False


@dataclass(frozen=True)
class Mark:
    """One value with its interval."""

    name: str
    style: str
    value: float
    low: float
    high: float


def series_class(label: str) -> str:
    """Style class of a policy: its own for the usual labels, else one of eight that depends on the label alone.

    Methods take them in the order of their table, so that neighbours there differ.
    """
    if label in NAMED_SERIES:
        return f"s-{label}"
    names = list(METHODS)
    place = names.index(label) if label in names else zlib.crc32(label.encode())
    return f"s-other{place % OTHER_SERIES}"


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    y_label: str,
    over: str = "optimizer steps",
    marks: Sequence[float] = (),
    note: str = "",
) -> Chart:
    """Lines over steps.

    Args:
        title: heading, also the picture's accessible name.
        series: lines; empty ones are left out. A missing value interrupts its line.
        y_label: unit of the vertical axis.
        over: what the horizontal axis counts, for the description.
        marks: x where a round starts, drawn as a dashed line.
        note: printed below.
    """
    drawn = [line for line in series if line.numbers]
    if not drawn:
        return _nothing(title, note)
    with drawing():
        figure, axes = _axes(y_label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        for x in marks:
            axes.axvline(x, color=INK, linestyle="--", linewidth=1, gid="s-mark")
        for line in drawn:
            ys = [math.nan if y is None or not math.isfinite(y) else y for _, y in line.points]
            shape = "o" if len(line.numbers) < 3 else ""
            axes.plot([x for x, _ in line.points], ys, shape + "-", ms=5, color=SERIES, gid=f"{line.style} line")
        said = "; ".join(f"{line.name}: {line.numbers[0][1]:.3g} to {line.numbers[-1][1]:.3g}" for line in drawn)
        svg = element(figure, title, f"{y_label} over {over}. {said}.")
    return Chart(title, svg, [(line.style, line.name) for line in drawn], note)


def histogram(
    title: str,
    groups: Sequence[tuple[str, str, Sequence[float]]],
    *,
    unit: str,
    cut: float | None = None,
    stacked: bool = False,
    note: str = "",
) -> Chart:
    """Counts of several groups of numbers over the same equal bins, from the smallest to the largest value.

    Args:
        title: heading.
        groups: (name, style class, values).
        unit: of the values.
        cut: drawn as a dashed line, if given.
        stacked: each group stands on the one before, as parts of a whole; else they overlap.
        note: printed below.
    """
    import numpy as np

    finite = [(name, style, [value for value in values if math.isfinite(value)]) for name, style, values in groups]
    filled = [group for group in finite if group[2]]
    if not filled:
        return _nothing(title, note)
    every = [value for *_, values in filled for value in values]
    edges = np.linspace(min(every), max(every) if max(every) > min(every) else min(every) + 1, BINS + 1)
    with drawing():
        figure, axes = _axes(f"count over {unit}")
        axes.yaxis.get_major_locator().set_params(integer=True)
        floor = np.zeros(BINS)
        for _, style, values in filled:
            counts = np.histogram(values, edges)[0]
            faint = {"fill": True, "facecolor": SERIES, "edgecolor": SERIES, "linewidth": 1.2}
            axes.stairs(floor + counts, edges, baseline=floor, gid=f"{style} area", **faint)
            floor = floor + counts if stacked else floor
        if cut is not None:
            axes.axvline(cut, color=INK, linestyle="--", linewidth=1.2, gid="s-mark")
        said = "; ".join(
            f"{name}: {len(values):,} values, median {statistics.median(values):.3g}" for name, _, values in filled
        )
        svg = element(figure, title, f"Histogram in {unit}. {said}.")
    return Chart(title, svg, [(style, name) for name, style, _ in filled], note)


def bars(title: str, values: Sequence[tuple[str, str, float]], *, note: str = "") -> Chart:
    """One horizontal bar a number, from zero, with name and number above it.

    Args:
        title: heading.
        values: (name, style class, value), finite.
        note: printed below.
    """
    with drawing():
        figure, axes = _rows(len(values))
        for place, (name, style, value) in enumerate(values):
            axes.barh(place, value, height=0.36, color=SERIES)[0].set_gid(f"{style} length")
            _name(axes, place, f"{name} {value:.3g}")
        axes.axvline(0, color=INK, linewidth=1)
        said = "; ".join(f"{name}: {value:.3g}" for name, _, value in values)
        svg = element(figure, title, f"Bars from zero. {said}.")
    return Chart(title, svg, note=note)


def intervals(title: str, marks: Sequence[Mark], *, low: float, high: float, note: str = "") -> Chart:
    """A line a policy: its name and value, and below it the value with its interval, on a fixed axis.

    Args:
        title: heading.
        marks: in percent; what lies outside `low` to `high` is drawn at the border.
        low, high: ends of the axis.
        note: printed below.
    """

    def inside(value: float) -> float:
        return min(max(value, low), high)

    with drawing():
        figure, axes = _rows(len(marks))
        axes.set_xlim(low, high)
        for place, mark in enumerate(marks):
            ends = [inside(mark.low), inside(mark.high)]
            axes.plot(ends, [place] * 2, color=SERIES, linewidth=2.5, gid=f"{mark.style} whisker", clip_on=False)
            face = PANEL if mark.style == "s-base" else SERIES
            dot = {"marker": _shape(mark.style), "ms": 8, "mfc": face, "mec": SERIES, "mew": 2, "clip_on": False}
            axes.plot([inside(mark.value)], [place], color=SERIES, gid=f"{mark.style} dot", **dot)
            _name(axes, place, f"{printable(mark.name, 34)}  {mark.value:.1f}  ({mark.low:.1f} to {mark.high:.1f})")
        said = "; ".join(f"{mark.name} {mark.value:.3g}, {mark.low:.3g} to {mark.high:.3g}" for mark in marks)
        svg = element(figure, title, f"Values with intervals. {said}.")
    return Chart(title, svg, note=note)


def _axes(unit: str) -> tuple[Figure, Any]:
    """A figure with one pair of axes; the unit stands at its upper left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0.15, 0.1, 0.83, 0.79))  # room for "1.25e−05" at the left
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.set_title(printable(unit), loc="left", fontsize=11, color=INK)
    return figure, axes


def _rows(count: int) -> tuple[Figure, Any]:
    """A figure of so many lines, the first one on top."""
    from matplotlib.figure import Figure

    height = 0.4 + 0.46 * count
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.02, 0.3 / height, 0.94, 1 - 0.35 / height))
    axes.set_ylim(count - 0.6, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure, axes


def _name(axes: Any, place: int, text: str) -> None:
    """Text above a line of `_rows`."""
    at = axes.get_yaxis_transform()
    axes.text(0, place - 0.28, printable(text.replace("-", "−"), 80), transform=at, va="bottom")


def _nothing(title: str, note: str) -> Chart:
    with drawing():
        figure, axes = _axes("")
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no values", ha="center", color=INK)
        return Chart(title, element(figure, title, "No values."), note=note, empty=True)


def _shape(style: str) -> str:
    """Policies differ in shape as well as colour: circles, square, diamond; triangles up and down for all others."""
    return _SHAPES.get(style, "v" if style[-1:] in "4567" else "^")
