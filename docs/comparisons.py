"""Tables of docs/results.md and docs/easy_vqa.md, from results.json, effects.json, easy_vqa.json and search.json."""

from __future__ import annotations

import json
import re
from typing import Any

from docs.filling import HERE, filled
from mbpo_core.methods import title_of


def render_results() -> str:
    """The page with the tables of the comparisons: of one testbed, or of one metric on all testbeds of the grid."""
    return filled("results.md", lambda name: _compared("results.json", name))


def render_easy_vqa() -> str:
    """The same of the second testbed."""
    return filled("easy_vqa.md", lambda name: _compared("easy_vqa.json", name))


METRICS = {
    "prior_conflict_accuracy": "against the prior, unseen",
    "prior_conflict_seen_accuracy": "against the prior, trained",
    "prior_consistent_accuracy": "as the prior says",
    "neutral_accuracy": "without a prior",
    "shifted_conflict_accuracy": "against, shifted scenes",
    "shifted_consistent_accuracy": "as the prior says, shifted",
    "shifted_neutral_accuracy": "without, shifted scenes",
    "existence_accuracy": "existence",
    "shape_accuracy": "which shape",
    "chair_i": "CHAIR_i",
    "caption_recall": "recall",
    "accuracy": "all closed",
    "blind_gap": "gained by seeing",
}
"""Columns of the tables of comparisons, in order."""

TESTBEDS = re.compile(r"scenes-(soft|absolute)1?-(natural-\d+|uniform)")
"""Names of the grid `testbeds`."""


def _compared(file: str, name: str) -> str:
    """A row a method and a column a metric of one testbed; or "testbeds METRIC": a row a testbed, a column a method.

    Or "search TESTBED" or "search TESTBED accuracy": the tries of a search; "effects TESTBED": what factors do.
    """
    kind, _, metric = name.partition(" ")
    if kind == "effects":
        return _effects(metric)
    if kind == "search":
        testbed, _, rule = metric.partition(" ")
        return _searched(testbed, rule)
    records = json.loads((HERE / file).read_text(encoding="utf-8"))
    if kind == "testbeds":
        mine = [row for row in records if TESTBEDS.fullmatch(row["testbed"]) and row["metric"] == metric]
        return _crossed(mine, ("testbed", "testbed"), ("method", _METHODS))
    mine = [row for row in records if row["testbed"] == name and row["metric"] in METRICS]
    return _crossed(
        sorted(mine, key=lambda row: list(METRICS).index(row["metric"])), ("method", "method"), ("metric", METRICS)
    )


def _effects(testbed: str) -> str:
    """A row a level: the mean of each factor's first one, and how far the others are from it.

    ± is half the t-interval over seeds; a difference is bold where that excludes zero.
    """
    levels: dict[tuple[str, str], dict[str, str]] = {}
    for row in json.loads((HERE / "effects.json").read_text(encoding="utf-8")):
        if row["testbed"] == testbed and row["metric"] in METRICS:
            levels.setdefault((row["factor"], row["level"]), {})[row["metric"]] = _effect(row)
    metrics = [metric for metric in METRICS if any(metric in cells for cells in levels.values())]
    lines = [f"| factor | level | {' | '.join(METRICS[metric] for metric in metrics)} |"]
    lines.append("|---|---|" + "---:|" * len(metrics))
    before = ""
    for (factor, level), cells in levels.items():
        shown = "" if factor == before else factor
        lines.append(f"| {shown} | {level} | {' | '.join(cells.get(metric, '–') for metric in metrics)} |")
        before = factor
    return "\n".join(lines) + "\n"


def _effect(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return f"{row['mean']:.1f} ±{(row['high'] - row['low']) / 2:.1f}"
    low, high = row["difference_low"], row["difference_high"]
    text = f"{row['difference']:+.1f} ±{(high - low) / 2:.1f}"
    return f"**{text}**" if low * high > 0 else text


def _searched(testbed: str, rule: str) -> str:
    """What every try of a search reached on dev: against the prior, unseen / trained / recall, or all closed questions.

    A row a method, a column a rate; or a row a method and rate, a column a way. Bold is what is taken: the best over
    all closed questions (rule "accuracy"), or by `_taken`.
    """
    tries: dict[str, dict[str, float]] = {}
    for row in json.loads((HERE / "search.json").read_text(encoding="utf-8")):
        if row["testbed"] == testbed:
            tries.setdefault(row["method"], {})[row["metric"]] = row["mean"]
    names = {match.groups(): match.string for name in tries if (match := TRY.fullmatch(name))}
    methods, rates, ways = ([*dict.fromkeys(each)] for each in zip(*names, strict=True))
    third = "caption_recall" if "caption_recall" in tries["base"] else "accuracy"
    taken = set()
    for method in methods:
        mine = [name for (one, _, way), name in names.items() if one == method and way != SHORT]
        taken.add(_best(tries, mine, "accuracy") if rule == "accuracy" else _taken(tries, mine))

    def cell(method: str, rate: str, way: str | None) -> str:
        name = names[method, rate, way]
        text = " / ".join(f"{tries[name][metric]:.1f}" for metric in (*AGAINST, third))
        return f"**{text}**" if name in taken else text

    if ways == [None]:
        heads = ["method", *rates]
        rows = [[_titled(method), *(cell(method, rate, None) for rate in rates)] for method in methods]
    else:
        heads = ["method", "rate", *(WAYS.get(way, way) for way in ways)]
        rows = [
            [_titled(method) if rate == rates[0] else "", rate, *(cell(method, rate, way) for way in ways)]
            for method in methods
            for rate in rates
        ]
    columns = len(rates if ways == [None] else ways)
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    lines.insert(1, "|" + "---|" * (len(heads) - columns) + "---:|" * columns)
    return "\n".join(lines) + "\n"


TRY = re.compile(r"(\w+)\.([\d.]+e-\d)(?:\.(.+))?")
"""Name of a try: method, rate, and in the natural pool's search the way."""

SHORT = "40k"
WAYS = {"1": "all of the way", SHORT: "half of the steps"}

AGAINST = ("prior_conflict_accuracy", "prior_conflict_seen_accuracy")
KEPT = ("neutral_accuracy", "existence_accuracy", "caption_recall", "shape_accuracy")


def _taken(tries: dict[str, dict[str, float]], names: list[str]) -> str:
    """The best against the prior of those that keep all else within a point of the base; else the best over all."""
    kept = [metric for metric in KEPT if metric in tries["base"]]
    fair = [name for name in names if all(tries[name][metric] >= tries["base"][metric] - 1 for metric in kept)]
    return _best(tries, fair, *AGAINST) if fair else _best(tries, names, "accuracy")


def _best(tries: dict[str, dict[str, float]], names: list[str], *metrics: str) -> str:
    return max(names, key=lambda name: sum(tries[name][metric] for metric in metrics))


_METHODS = {"base": "base", "sft_gentle": "SFT, as the rule takes it"}


def _crossed(records: list[dict[str, Any]], down: tuple[str, str], across: tuple[str, dict[str, str]]) -> str:
    """Values ± half the interval over seeds, bold where both intervals of the difference to the base exclude zero."""
    heads = list(dict.fromkeys(row[across[0]] for row in records))
    lines = [f"| {down[1]} | {' | '.join(across[1].get(head) or _titled(head) for head in heads)} |"]
    lines.append("|---|" + "---:|" * len(heads))
    for name in dict.fromkeys(row[down[0]] for row in records):
        mine = {row[across[0]]: _interval(row) for row in records if row[down[0]] == name}
        lines.append(f"| {_titled(name)} | {' | '.join(mine.get(head, '–') for head in heads)} |")
    return "\n".join(lines) + "\n"


def _titled(name: str) -> str:
    return _METHODS.get(name) or title_of(name)


def _interval(row: dict[str, Any]) -> str:
    low, high = row.get("seed_low"), row.get("seed_high")
    if low is None or high is None:
        low, high = row["low"], row["high"]
    text = f"{(low + high) / 2:.1f} ±{(high - low) / 2:.1f}"  # the interval's middle is the mean over seeds
    ends: list[Any] = [row.get(f"difference_{end}") for end in ("low", "high", "seed_low", "seed_high")]
    certain = None not in ends and ends[0] * ends[1] > 0 and ends[2] * ends[3] > 0
    return f"**{text}**" if certain else text
