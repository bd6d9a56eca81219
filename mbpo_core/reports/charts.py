"""Small inline SVG charts: lines, histogram, and a track of values with intervals. No dependency, no script.

Colours come from the page's style sheet through the classes `s-<name>` (see `series_class`), so that charts follow
light and dark mode. All text is escaped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from mbpo_core.methods import METHODS

WIDTH, HEIGHT = 360.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 26.0
_BAR_STEP = 44.0
NAMED_SERIES: tuple[str, ...] = ("base", "sft", "dpo", "trained")
OTHER_SERIES = 8  # classes for all other labels: four colours, each with two dashes and shapes


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
    """One value on a track, with its interval."""

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
    title: str, series: Sequence[Series], *, y_label: str, marks: Sequence[float] = (), note: str = ""
) -> Chart:
    """Lines over optimizer steps.

    Args:
        title: heading, also the picture's accessible name.
        series: lines; empty ones are left out.
        y_label: unit of the vertical axis, for the description.
        marks: x where a round starts, drawn as a dashed line.
        note: printed below.
    """
    drawn = [line for line in series if line.numbers]
    if not drawn:
        return Chart(title, _nothing(title), note=note, empty=True)
    xs = [x for line in drawn for x, _ in line.numbers]
    ys = [y for line in drawn for _, y in line.numbers]
    x_ticks = [tick for tick in nice_ticks(min(xs), max(xs), 5) if tick == round(tick)]
    frame = _Frame(min(xs), max(xs), *_padded(ys))
    parts = [_grid(frame, x_ticks, nice_ticks(frame.bottom, frame.top, 5))]
    for x in marks:
        at = f"{frame.x(x):.1f}"
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    parts += [_line(frame, line) for line in drawn]
    said = "; ".join(f"{line.name}: {line.numbers[0][1]:.3g} to {line.numbers[-1][1]:.3g}" for line in drawn)
    description = f"{y_label} over optimizer steps. {said}."
    return Chart(title, _svg(title, description, "".join(parts)), [(line.style, line.name) for line in drawn], note)


def histogram(title: str, groups: Sequence[tuple[str, str, Sequence[float]]], *, unit: str, bins: int = 30) -> Chart:
    """Counts of several groups of numbers over the same bins.

    Args:
        title: heading.
        groups: (name, style class, values).
        unit: of the values, for axis and description.
        bins: number of equal bins from the smallest to the largest value.
    """
    values = [value for _, _, numbers in groups for value in numbers if math.isfinite(value)]
    if not values:
        return Chart(title, _nothing(title), empty=True)
    low, high = min(values), max(values)
    width = (high - low) / bins or 1.0
    counts = [(name, style, _count(numbers, low, width, bins)) for name, style, numbers in groups]
    frame = _Frame(low, low + width * bins, 0.0, float(max(max(heights) for _, _, heights in counts)) * 1.05)
    parts = [_grid(frame, nice_ticks(frame.left, frame.right, 5), nice_ticks(0, frame.top, 5))]
    parts += [_steps(frame, style, heights, width) for _, style, heights in counts]
    if frame.left < 0 < frame.right:
        parts.append(
            f'<line class="mark" x1="{frame.x(0):.1f}" x2="{frame.x(0):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    said = "; ".join(
        f"{name}: {len(numbers)} values, median {_median(numbers):.3g}" for name, _, numbers in groups if numbers
    )
    svg = _svg(title, f"Histogram in {unit}. {said}.", "".join(parts))
    return Chart(title, svg, [(style, name) for name, style, _ in groups])


def bars(title: str, values: Sequence[tuple[str, str, float]], *, note: str = "") -> Chart:
    """One horizontal bar a number, from zero, with the number at its end.

    Args:
        title: heading.
        values: (name, style class, value), finite.
        note: printed below.
    """
    low, high = min(0.0, *(value for *_, value in values)), max(0.0, *(value for *_, value in values))
    frame = _Frame(low, high if high > low else low + 1, 0, 1)
    parts, zero = [], frame.x(0)
    for place, (name, style, value) in enumerate(values):
        top, end = TOP + 18 + place * _BAR_STEP, frame.x(value)
        said = f"{name} {value:.3g}".replace("-", "−")
        left, width = min(zero, end), max(abs(end - zero), 1)
        parts.append(f'<text x="{LEFT}" y="{top - 6:.1f}">{escape(said)}</text>')
        parts.append(f'<rect class="length {style}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="16"/>')
        parts.append(f'<line class="mark" x1="{zero:.1f}" x2="{zero:.1f}" y1="{top - 3:.1f}" y2="{top + 19:.1f}"/>')
    said = "; ".join(f"{name}: {value:.3g}" for name, _, value in values)
    svg = _svg(title, f"Bars from zero. {said}.", "".join(parts), TOP + len(values) * _BAR_STEP)
    return Chart(title, svg, note=note)


def track(title: str, marks: Sequence[Mark], *, low: float, high: float) -> Markup:
    """One line of a dumbbell chart: values with interval whiskers between `low` and `high`, as wide as its place.

    Coordinates are percentages, so the drawing stretches with the page while its marks keep their shape.
    """

    def at(value: float) -> str:
        return f"{100 * min(max((value - low) / (high - low or 1), 0), 1):.2f}%"

    rows = [f'<line class="grid" x1="{p}%" x2="{p}%" y1="0" y2="100%"/>' for p in (0, 25, 50, 75, 100)]
    if len(marks) > 1:
        rows.append(f'<line class="link" x1="{at(marks[0].value)}" x2="{at(marks[-1].value)}" y1="50%" y2="50%"/>')
    rows += [
        f'<line class="whisker {mark.style}" x1="{at(mark.low)}" x2="{at(mark.high)}" y1="50%" y2="50%"/>'
        f'<svg x="{at(mark.value)}" y="50%" overflow="visible">'
        f'<path class="dot {mark.style}" d="{_shape(mark.style)}"><title>{escape(mark.name)}</title></path></svg>'
        for mark in marks
    ]
    said = "; ".join(f"{mark.name} {mark.value:.3g}" for mark in marks)
    return Markup(
        f'<svg class="track" role="img" aria-label="{escape(title)}: {escape(said)}" width="100%" height="30">'
        f"{''.join(rows)}</svg>"
    )


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that lie in low..high."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Frame:
    """From data to drawing coordinates."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.left) / (self.right - self.left or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.bottom) / (self.top - self.bottom or 1) * (HEIGHT - TOP - BOTTOM)


def _svg(title: str, description: str, body: str, height: float = HEIGHT) -> Markup:
    return Markup(
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH:g} {height:g}" aria-label="{escape(title)}">'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )


def _nothing(title: str) -> Markup:
    text = f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no values</text>'
    return _svg(title, "No values.", text)


def _grid(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    parts = []
    for tick in y_ticks:
        at = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 3.5:.1f}" text-anchor="end">{_tick(tick)}</text>')
    parts += [
        f'<text x="{frame.x(tick):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{_tick(tick)}</text>' for tick in x_ticks
    ]
    return "".join(parts)


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _line(frame: _Frame, line: Series) -> str:
    """A path that is interrupted where a value is missing; a lone point becomes a dot."""
    path, pen_down = [], False
    for x, y in line.points:
        if y is None or not math.isfinite(y):
            pen_down = False
            continue
        path.append(f"{'L' if pen_down else 'M'}{frame.x(x):.1f} {frame.y(y):.1f}")
        pen_down = True
    if len(line.numbers) == 1:
        ((x, y),) = line.numbers
        return f'<circle class="dot {line.style}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
    return f'<path class="line {line.style}" d="{"".join(path)}"/>'


def _steps(frame: _Frame, style: str, heights: Sequence[int], width: float) -> str:
    path = [f"M{frame.x(frame.left):.1f} {frame.y(0):.1f}"]
    for index, height in enumerate(heights):
        start = frame.left + index * width
        path.append(f"L{frame.x(start):.1f} {frame.y(height):.1f}L{frame.x(start + width):.1f} {frame.y(height):.1f}")
    path.append(f"L{frame.x(frame.right):.1f} {frame.y(0):.1f}Z")
    return f'<path class="area {style}" d="{"".join(path)}"/>'


def _shape(style: str) -> str:
    """Policies differ in shape as well as colour: circle, square, diamond; triangles up and down for all others."""
    shapes = {
        "s-trained": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0",
        "s-base": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
        "s-sft": "M-4.5 -4.5h9v9h-9z",
        "s-dpo": "M0 -6L6 0L0 6L-6 0z",
    }
    down = style[-1:] in "4567"
    return shapes.get(style, "M0 5.5L5.5 -4.5H-5.5z" if down else "M0 -5.5L5.5 4.5H-5.5z")


def _padded(ys: Sequence[float]) -> tuple[float, float]:
    low, high = min(ys), max(ys)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def _count(numbers: Sequence[float], low: float, width: float, bins: int) -> list[int]:
    heights = [0] * bins
    for value in numbers:
        if math.isfinite(value):
            heights[min(int((value - low) / width), bins - 1)] += 1
    return heights


def _median(numbers: Sequence[float]) -> float:
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
