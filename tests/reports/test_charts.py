"""Charts: coordinates, gaps, escaping, and colours that the style sheet gives."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from importlib import resources

import pytest

from mbpo_core.methods import METHODS
from mbpo_core.reports.charts import (
    BINS,
    NAMED_SERIES,
    OTHER_SERIES,
    Mark,
    Series,
    bars,
    histogram,
    intervals,
    line_chart,
    series_class,
)

HOSTILE = "\"><script>alert('x')</script> $\\frac{a}$ \x00\x1b ]]> &amp;"


def path_of(svg: str, style: str) -> list[tuple[str, float, float]]:
    """The drawing commands of the first path of a group of that class."""
    found = ET.fromstring(svg).find(f".//g[@class='{style}']/path")
    assert found is not None
    parts = re.findall(r"([ML]) ([-\d.]+) ([-\d.]+)", found.attrib["d"])
    return [(command, float(x), float(y)) for command, x, y in parts]


def test_line_breaks_where_a_value_is_missing() -> None:
    points = [(0, 1.0), (1, 2.0), (2, None), (3, 1.5), (4, float("nan")), (5, 1.0), (6, 1.0)]
    chart = line_chart("Loss", [Series("a", "s-base", points)], y_label="loss")
    assert "".join(command for command, *_ in path_of(chart.svg, "s-base line")) == "MLMML"


def test_lines_lie_right_way_up_and_marks_where_they_belong() -> None:
    chart = line_chart("x", [Series("a", "s-base", [(0, 0.0), (5, 0.5), (10, 1.0)])], y_label="y", marks=[5])
    (_, x0, y0), (_, middle, _), (_, x1, y1) = path_of(chart.svg, "s-base line")
    assert x0 < x1
    assert y0 > y1
    assert path_of(chart.svg, "s-mark")[0][1] == pytest.approx(middle, abs=0.1)


def test_chart_without_values_says_so() -> None:
    nothing = line_chart("Reward", [Series("a", "s-base", [(0, None), (1, float("nan"))])], y_label="y")
    assert "no values" in nothing.svg
    assert "no values" in histogram("Gain", [("chosen", "s-chosen", [])], unit="nats").svg
    assert nothing.empty


def test_histogram_counts_every_value_once() -> None:
    """2 values in the first bin, 1 in the last: twice as high above the floor."""
    chart = histogram("Gain", [("chosen", "s-chosen", [0.0, 0.01, 1.0])], unit="nats per token")
    levels = [y for *_, y in path_of(chart.svg, "s-chosen area")]
    floor, heights = max(levels), sorted({max(levels) - y for y in levels} - {0.0})
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert floor > 0
    assert "3 values, median 0.01" in chart.svg
    assert "no values" not in histogram("Gain", [("chosen", "s-chosen", [0.3, 0.3])], unit="nats").svg
    assert BINS == 30


def test_parts_of_a_whole_stand_on_each_other_and_the_cut_off_between_them() -> None:
    chart = histogram(
        "Gain", [("kept", "s-chosen", [0.0, 1.0]), ("dropped", "s-base", [0.0])], unit="nats", cut=0.5, stacked=True
    )
    top, below = (min(y for *_, y in path_of(chart.svg, f"s-{name} area")) for name in ("base", "chosen"))
    assert top < below  # further up
    (_, left, _), (_, _, _), *_ = path_of(chart.svg, "s-chosen area")
    right = max(x for _, x, _ in path_of(chart.svg, "s-chosen area"))
    assert path_of(chart.svg, "s-mark")[0][1] == pytest.approx((left + right) / 2, abs=0.5)


def test_intervals_lie_on_their_axis_and_stay_inside() -> None:
    marks = [Mark("base", "s-base", 0, 0, 50), Mark("MBPO", "s-trained", 130, -10, 140)]
    chart = intervals("Accuracy", marks, low=0, high=100)
    (_, zero, _), (_, fifty, _) = path_of(chart.svg, "s-base whisker")
    (_, left, _), (_, right, _) = path_of(chart.svg, "s-trained whisker")
    assert left == zero
    assert right - zero == pytest.approx(2 * (fifty - zero), abs=0.1)
    assert "base 0, 0 to 50" in chart.svg
    dots = [use.attrib["x"] for use in ET.fromstring(chart.svg).findall(".//g[@class='s-trained dot']//use")]
    assert [float(x) for x in dots] == [right]


def test_bars_start_at_zero_and_have_their_sign() -> None:
    chart = bars("Reward bars", [("text", "s-text", 2.0), ("image", "s-image", -1.0)])
    text, image = ([x for _, x, _ in path_of(chart.svg, f"s-{name} length")] for name in ("text", "image"))
    assert min(text) == pytest.approx(max(image), abs=0.1)
    assert max(text) - min(text) == pytest.approx(2 * (max(image) - min(image)), abs=0.3)
    labels = [label.text for label in ET.fromstring(chart.svg).iter("text")]
    assert {"text 2", "image −1"} <= set(labels)
    assert "no values" not in bars("Reward bars", [("text", "s-text", 0.0)]).svg


def test_text_is_escaped_and_no_style_attribute_is_left() -> None:
    charts = [
        line_chart(HOSTILE, [Series(HOSTILE, "s-base", [(0, 1.0), (1, 2.0)])], y_label=HOSTILE).svg,
        histogram(HOSTILE, [(HOSTILE, "s-base", [1.0, 2.0])], unit=HOSTILE).svg,
        bars(HOSTILE, [(HOSTILE, "s-base", 1.0)]).svg,
        intervals(HOSTILE, [Mark(HOSTILE, "s-base", 1, 0, 2)], low=0, high=3).svg,
    ]
    for svg in charts:
        assert "<script" not in svg
        nodes = list(ET.fromstring(svg).iter())
        assert not [node for node in nodes if node.tag in ("style", "script", "metadata")]
        assert {key for node in nodes for key in node.attrib} <= {
            "class", "role", "viewBox", "aria-label", "d", "x", "y", "width", "height", "id", "href", "clip-path",
            "transform", "fill", "fill-opacity", "font-size", "opacity", "stroke", "stroke-dasharray",
            "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor",
        }  # fmt: skip


def test_colours_are_the_style_sheets_and_ids_do_not_meet() -> None:
    one, other = (
        line_chart(title, [Series("a", "s-base", [(0, 1.0), (1, 2.0)])], y_label="y", marks=[1]).svg
        for title in ("one", "other")
    )
    colours = set(re.findall(r"(?:fill|stroke)=\"([^\"]+)\"", one)) - {"none"}
    assert colours <= {"var(--c)", "var(--soft)", "var(--grid)", "var(--panel)"}
    assert "var(--c)" in colours
    ids = [set(re.findall(r" id=\"([^\"]+)\"", svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r"url\(#([^)]+)\)", one)) <= ids[0]
    assert one == line_chart("one", [Series("a", "s-base", [(0, 1.0), (1, 2.0)])], y_label="y", marks=[1]).svg


def test_policies_have_classes_of_their_own() -> None:
    assert series_class("trained") == "s-trained"
    assert series_class("<x>") == series_class("<x>")
    assert series_class("<x>").removeprefix("s-other").isdigit()
    methods = [series_class(label) for label in METHODS if label not in ("sft", "dpo")]
    assert set(methods) == {f"s-other{number}" for number in range(OTHER_SERIES)}


def test_every_colour_can_be_seen_in_light_and_dark() -> None:
    """At least 3 to 1 against the panel, WCAG's bound for drawings; and every class that is given out has a colour."""
    style = (resources.files("mbpo_core.reports") / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for part in style.split("@media")[:2])
    for colours in (light, dark):
        for name in ("base", "sft", "dpo", "trained", "other0", "other1", "other2", "other3", "good", "bad"):
            assert contrast(colours[name], colours["panel"]) >= 3, name
    others = (f"other{number}" for number in range(OTHER_SERIES))
    plain = ("text", "image", "part", "chosen", "rejected", "clean", "attacked", "median", "upper", "lower")
    for name in (*NAMED_SERIES, *others, *plain):
        assert re.search(rf"\.s-{name}\b[^{{}}]*{{ --c: var\(", style), name


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
