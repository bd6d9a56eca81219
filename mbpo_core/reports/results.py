"""Before and after: the evaluation's summary as tables, values with their intervals, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mbpo_core.methods import title_of
from mbpo_core.reports.charts import Chart, Mark, intervals, series_class
from mbpo_core.stage import Reader

Entry = Mapping[str, Any]
_ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Cell:
    """A number with its interval; tone is good, bad, or empty where the interval holds zero."""

    value: str
    interval: str = ""
    tone: str = ""
    title: str = ""


@dataclass(frozen=True)
class MetricRow:
    """One metric: a cell a policy, then a cell a difference."""

    name: str
    label: str
    arrow: str
    cells: list[Cell]
    differences: list[Cell]


@dataclass(frozen=True)
class Results:
    """The headline section."""

    policies: list[tuple[str, str]]  # (style class, title)
    compared: list[str]  # titles of the policies that differences are shown for
    base: str
    rows: list[MetricRow]
    charts: list[Chart]
    groups: dict[str, list[MetricRow]]
    sentences: list[str] = field(default_factory=list)
    caption: str = ""


def results_section(evaluation: Reader | None) -> Results | None:
    """The section, or None where nothing was evaluated."""
    if evaluation is None:
        return None
    summary = _in_order(evaluation.json("summary.json"))
    labels = list(summary["policies"])
    differences = list(summary["differences"])
    headline = [name for name, described in summary["metrics"].items() if described["headline"]]
    groups: dict[str, list[MetricRow]] = {}
    for name, described in summary["metrics"].items():
        groups.setdefault(described["group"], []).append(_row(summary, name, differences))
    return Results(
        policies=[(series_class(label), title_of(label)) for label in labels],
        compared=[title_of(label) for label in differences],
        base=title_of(summary["about"].get("base", labels[0])),
        rows=[_row(summary, name, differences[-1:]) for name in headline],
        charts=[chart for name in headline if (chart := _chart(summary, name)) is not None],
        groups=groups,
        sentences=_sentences(summary),
        caption=_caption(summary["about"]),
    )


def _in_order(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Policies and metrics in the order that the evaluation gave them; stored JSON has its keys sorted."""
    labels, metrics = summary["about"]["policies"], summary["metrics"]
    return {
        **summary,
        "policies": {label: summary["policies"][label] for label in labels},
        "differences": {label: summary["differences"][label] for label in labels if label in summary["differences"]},
        "metrics": {name: metrics[name] for name in sorted(metrics, key=lambda name: int(metrics[name]["place"]))},
    }


def _row(summary: Mapping[str, Any], name: str, differences: list[str]) -> MetricRow:
    described = summary["metrics"][name]
    unit, better = described["unit"], described["better"]
    entries = [policy.get(name, {}) for policy in summary["policies"].values()]
    compared = [summary["differences"][label].get(name, {}) for label in differences]
    return MetricRow(
        name=name,
        label=described["label"],
        arrow=_ARROWS.get(better, ""),
        cells=[_cell(entry, unit) for entry in entries],
        differences=[_difference(entry, unit, better) for entry in compared],
    )


def _cell(entry: Entry, unit: str) -> Cell:
    if entry.get("value") is None:
        return Cell("–", title="nothing to divide by")
    scale = 100 if unit == "share" else 1
    value, low, high = (scale * entry[key] for key in ("value", "low", "high"))
    return Cell(f"{value:.1f}", f"{low:.1f} to {high:.1f}", title=f"n = {entry['n']:,}")


def _difference(entry: Entry, unit: str, better: str) -> Cell:
    if entry.get("value") is None:
        return Cell("–")
    scale = 100 if unit == "share" else 1
    value, low, high = (scale * entry[key] for key in ("value", "low", "high"))
    certain = bool(better) and (low > 0 or high < 0)
    tone = ("good" if (value > 0) == (better == "higher") else "bad") if certain else ""
    title = f"n = {entry['n']:,}" + (f", McNemar p = {entry['p']:.2g}" if "p" in entry else "")
    return Cell(_signed(value), f"{_signed(low)} to {_signed(high)}", tone, title)


def _signed(value: float) -> str:
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def _chart(summary: Mapping[str, Any], name: str) -> Chart | None:
    """A metric of every policy, in percent; None for one in other units, and where no policy has it."""
    described = summary["metrics"][name]
    entries = [(label, policy.get(name, {})) for label, policy in summary["policies"].items()]
    marks = [
        Mark(title_of(label), series_class(label), 100 * entry["value"], 100 * entry["low"], 100 * entry["high"])
        for label, entry in entries
        if entry.get("value") is not None
    ]
    if described["unit"] != "share" or not marks:
        return None
    return intervals(f"{described['label']} {_ARROWS.get(described['better'], '')}".strip(), marks, low=0, high=100)


def _sentences(summary: Mapping[str, Any]) -> list[str]:
    """What changed on the first headline metric, and what it cost on the others that fell."""
    if not summary["differences"]:
        return []
    base = summary["about"].get("base", next(iter(summary["policies"])))
    trained = list(summary["differences"])[-1]
    before, after = summary["policies"][base], summary["policies"][trained]
    change, metrics = summary["differences"][trained], summary["metrics"]
    names = [name for name in metrics if metrics[name]["headline"] and change.get(name, {}).get("value") is not None]
    if not names:
        return []
    first = "accuracy" if "prior_conflict_accuracy" not in names else "prior_conflict_accuracy"
    first = first if first in names else names[0]
    entry = change[first]
    sentences = [
        f"{metrics[first]['label']}: {100 * before[first]['value']:.1f} % before, {100 * after[first]['value']:.1f} % "
        f"after {title_of(trained)} ({_signed(100 * entry['value'])} points, {_interval(summary)} "
        f"{_signed(100 * entry['low'])} to {_signed(100 * entry['high'])})."
    ]
    worse = [
        name
        for name in names
        if name != first and _difference(change[name], "share", metrics[name]["better"]).tone == "bad"
    ]
    if worse:
        losses = ", ".join(
            f"{_inside(metrics[n]['label'])} ({_signed(100 * change[n]['value'])} points)" for n in worse
        )
        sentences.append(f"Worse beyond its interval: {losses}.")
    else:
        sentences.append("No other number in this table is worse beyond its interval.")
    return sentences


def _inside(label: str) -> str:
    """A label as it stands inside a sentence."""
    return label[:1].lower() + label[1:]


def _interval(summary: Mapping[str, Any]) -> str:
    return f"{100 * summary['about']['confidence']:g} % interval"


def _caption(about: Mapping[str, Any]) -> str:
    level = f"{100 * about['confidence']:g} %"
    by = " and by ".join(["question", *([", ".join(about["clusters"])] if about.get("clusters") else [])])
    if "seeds" in about:
        return f"In percent. Mean of {about['seeds']} seeds with the {level} t-interval over seeds."
    return (
        f"In percent, with {level} intervals: Wilson for rates; bootstrap by {by} ({about['bootstrap']:,} draws) "
        f"for other ratios and for differences, which are paired. {about['questions']:,} held-out questions, each "
        "asked of every policy."
    )
