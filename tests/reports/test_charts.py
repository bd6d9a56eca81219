"""Charts: coordinates, gaps, escaping."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from importlib import resources

import pytest

from mbpo_core.methods import METHODS
from mbpo_core.reports.charts import (
    NAMED_SERIES,
    OTHER_SERIES,
    Mark,
    Series,
    bars,
    histogram,
    line_chart,
    nice_ticks,
    series_class,
    track,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.5, 0.43, [-0.4, -0.2, 0, 0.2, 0.4]),
        (0, 37, [0, 10, 20, 30]),
        (3, 3, [3]),
        (1e-5, 3.2e-5, [1e-5, 1.5e-5, 2e-5, 2.5e-5, 3e-5]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high, 5) == pytest.approx(expected)


def test_line_breaks_where_a_value_is_missing() -> None:
    chart = line_chart("Loss", [Series("a", "s-base", [(0, 1.0), (1, 2.0), (2, None), (3, 1.5)])], y_label="loss")
    path = ET.fromstring(chart.svg).find("path[@class='line s-base']")
    assert path is not None
    assert path.attrib["d"].count("M") == 2
    assert path.attrib["d"].count("L") == 1


def test_lines_span_the_frame_and_lie_right_way_up() -> None:
    chart = line_chart("x", [Series("a", "s-base", [(0, 0.0), (10, 1.0)])], y_label="y", marks=[5])
    drawing = ET.fromstring(chart.svg)
    path = drawing.find("path[@class='line s-base']")
    assert path is not None
    (x0, y0), (x1, y1) = (point.split() for point in path.attrib["d"][1:].split("L"))
    assert float(x0) == 46
    assert float(x1) == 352
    assert float(y0) > float(y1)
    mark = drawing.find("line[@class='mark']")
    assert mark is not None
    assert float(mark.attrib["x1"]) == pytest.approx((46 + 352) / 2, abs=0.1)


def test_chart_without_values_says_so() -> None:
    nothing = line_chart("Reward", [Series("a", "s-base", [(0, None), (1, float("nan"))])], y_label="y")
    assert "no values" in nothing.svg
    assert "no values" in histogram("Gain", [("chosen", "s-chosen", [])], unit="nats").svg
    assert nothing.empty


def test_histogram_counts_every_value_once() -> None:
    values = [0.0, 0.1, 0.1, 0.95, 1.0]
    chart = histogram("Gain", [("chosen", "s-chosen", values)], unit="nats per token", bins=2)
    path = ET.fromstring(chart.svg).find("path[@class='area s-chosen']")
    assert path is not None
    heights = [float(point.split()[1]) for point in path.attrib["d"].strip("MZ").split("L")]
    floor, left, right = heights[0], heights[1], heights[3]
    assert (floor - left) / (floor - right) == pytest.approx(3 / 2, rel=0.01)
    assert "5 values, median 0.1" in chart.svg
    same = histogram("Gain", [("chosen", "s-chosen", [0.3, 0.3])], unit="nats")
    assert "no values" not in same.svg


def test_track_places_values_in_percent_of_its_width_and_stays_inside() -> None:
    marks = [Mark("base", "s-base", 25, 20, 30), Mark("MBPO", "s-trained", 130, -10, 140)]
    svg = track("Accuracy", marks, low=0, high=100)
    assert '<svg x="25.00%"' in svg
    assert '<svg x="100.00%"' in svg
    assert 'x1="0.00%" x2="100.00%"' in svg
    assert "base 25" in svg


def test_text_is_escaped() -> None:
    hostile = "\"><script>alert('x')</script>"
    charts = [
        line_chart(hostile, [Series(hostile, "s-base", [(0, 1.0), (1, 2.0)])], y_label=hostile).svg,
        histogram(hostile, [(hostile, "s-base", [1.0, 2.0])], unit=hostile).svg,
        bars(hostile, [(hostile, "s-base", 1.0)]).svg,
        track(hostile, [Mark(hostile, "s-base", 1, 0, 2)], low=0, high=3),
    ]
    for svg in charts:
        assert "<script" not in svg
        ET.fromstring(svg)


def test_policies_have_classes_of_their_own() -> None:
    assert series_class("trained") == "s-trained"
    assert series_class("<x>") == series_class("<x>")
    assert series_class("<x>").removeprefix("s-other").isdigit()
    methods = [series_class(label) for label in METHODS if label not in ("sft", "dpo")]
    assert set(methods) == {f"s-other{number}" for number in range(OTHER_SERIES)}
    assert series_class("mfpo") != series_class("mfpo_online")


def test_bars_start_at_zero_and_have_their_sign() -> None:
    drawing = ET.fromstring(bars("Reward bars", [("text", "s-text", 2.0), ("image", "s-image", -1.0)]).svg)
    text, image = drawing.findall("rect")
    zero = float(text.attrib["x"])
    assert float(image.attrib["x"]) + float(image.attrib["width"]) == pytest.approx(zero, abs=0.2)
    assert float(text.attrib["width"]) == pytest.approx(2 * float(image.attrib["width"]), abs=0.3)
    assert [label.text for label in drawing.findall("text")] == ["text 2", "image −1"]
    assert "no values" not in bars("Reward bars", [("text", "s-text", 0.0)]).svg


def test_every_colour_can_be_seen_in_light_and_dark() -> None:
    """At least 3 to 1 against the panel, WCAG's bound for drawings; and every class that is given out has a colour."""
    style = (resources.files("mbpo_core.reports") / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for part in style.split("@media")[:2])
    for colours in (light, dark):
        for name in ("base", "sft", "dpo", "trained", "other0", "other1", "other2", "other3", "good", "bad"):
            assert contrast(colours[name], colours["panel"]) >= 3, name
    for name in (*NAMED_SERIES, *(f"other{number}" for number in range(OTHER_SERIES)), "text", "image", "part"):
        assert re.search(rf"\.s-{name}\b[^{{}}]*{{ --c: var\(", style), name


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
