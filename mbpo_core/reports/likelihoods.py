"""How likely the chosen answers were: on the clean and the rejected image, and at every step of an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.reports.charts import Chart, Series, histogram, line_chart
from mbpo_core.reports.kinds import Words
from mbpo_core.reports.sources import parse_meta
from mbpo_core.stage import Row


def likelihood_charts(words: Words, rows: Sequence[Row]) -> list[Chart]:
    """How likely the answers were before and after, and, where it was recorded, at each step of the attack."""
    sides = [("on the clean image", "s-clean", "logprob_clean")]
    if words.in_ball and any(row["logprob_attacked"] != row["logprob_rounded"] for row in rows):
        sides.append((f"under {words.by}, not rounded", "s-attacked", "logprob_attacked"))
    sides.append(("on the saved image", "s-rejected", "logprob_rounded"))
    groups = [(name, style, [row[column] for row in rows]) for name, style, column in sides]
    ends = histogram("log p(chosen) before and after", groups, unit="nats per token", note="of the negatives")
    return [ends, *_attack_charts(rows)]


def _attack_charts(rows: Sequence[Row]) -> list[Chart]:
    """Attack curves: of what lowers log p(chosen), and of what raises log p(target)."""
    charts = []
    for targeted, title in ((False, "log p(chosen) along the attack"), (True, "log p(target) along the attack")):
        curves = attack_curves(rows, targeted=targeted)
        if curves:
            shares = zip(("upper quartile", "median", "lower quartile"), (0.75, 0.5, 0.25), strict=True)
            lines = [Series(name, f"s-{name.split()[0]}", quantile(curves, share)) for name, share in shares]
            note = f"gradient steps; {len(curves):,} negatives, one that ended early keeps its last value"
            charts.append(line_chart(title, lines, y_label="nats per token", over="gradient steps", note=note))
    return charts


def attack_curves(rows: Sequence[Mapping[str, Any]], *, targeted: bool) -> list[list[float]]:
    """What each attack recorded before its steps; where it lowers log p(chosen), with where it ended (not rounded)."""
    told = [(row, parse_meta(row["attack"])) for row in rows]
    recorded = [
        (row, how["curve"])
        for row, how in told
        if (how.get("target", "none") != "none") == targeted and how.get("curve")
    ]
    return [curve if targeted else [*curve, row["logprob_attacked"]] for row, curve in recorded]


def quantile(curves: Sequence[Sequence[float]], share: float) -> list[tuple[float, float | None]]:
    """(step, quantile over curves) for every step of the longest curve; a shorter one keeps its last value."""
    import numpy as np

    longest = max(map(len, curves))
    even = np.array([[*curve, *([curve[-1]] * (longest - len(curve)))] for curve in curves])
    return list(enumerate(np.quantile(even, share, axis=0).tolist()))
