"""Pictures of what factors do, and the list of all pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.ablation.effects import Estimate, MainEffect, interactions, main_effects
from mbpo_core.ablation.pareto import pareto_picture
from mbpo_core.ablation.pictures import MARKS, cells_picture, drawn, heading, plain, tidy
from mbpo_core.ablation.results import Results


def effects_picture(results: Results, form: str = "svg") -> bytes | None:
    """A panel a metric and factor: the mean at each level, with its interval; None where no factor has an effect."""
    panels = [effect for metric in results.plotted for effect in main_effects(results, metric)]
    if not panels:
        return None

    def draw(axes: Any) -> None:
        for axis, effect in zip(axes, panels, strict=False):
            _draw_effect(axis, results, effect)

    return drawn(draw, len(panels), 1.2 + 0.3 * max(len(effect.levels) for effect in panels), form)


def interactions_picture(results: Results, form: str = "svg") -> bytes | None:
    """A panel a metric and pair of factors: lines that run parallel say that the factors do not interact."""
    panels = [(metric, *found) for metric in results.plotted for found in interactions(results, metric)]
    if not panels:
        return None

    def draw(axes: Any) -> None:
        for axis, (metric, one, other, means) in zip(axes, panels, strict=False):
            _draw_interaction(axis, results, metric, (one, other), means)

    return drawn(draw, len(panels), 3.8, form)


def _draw_effect(axis: Any, results: Results, effect: MainEffect) -> None:
    scale = results.scale(effect.metric)
    for place, found in enumerate(effect.levels.values()):
        axis.errorbar(scale * found.value, place, xerr=_bars([found], scale), fmt="o", color="#2b5c9e", capsize=3, ms=5)
    axis.set_yticks(range(len(effect.levels)), [plain(level) for level in effect.levels])
    axis.set_ylim(len(effect.levels) - 0.5, -0.5)
    axis.set_title(f"{plain(effect.factor)}\n{heading(results, effect.metric)}", fontsize=9)
    tidy(axis, "x")


def _draw_interaction(
    axis: Any, results: Results, metric: str, factors: tuple[str, str], means: Mapping[tuple[str, str], Estimate]
) -> None:
    one, other = factors
    scale, places = results.scale(metric), range(len(results.factors[one]))
    for number, level in enumerate(results.factors[other]):
        found = [means[first, level] for first in results.factors[one]]
        shift = 0.06 * (number - (len(results.factors[other]) - 1) / 2)
        axis.errorbar(
            [place + shift for place in places],
            [scale * entry.value for entry in found],
            yerr=_bars(found, scale),
            marker=MARKS[number % len(MARKS)],
            capsize=2,
            linewidth=1.2,
            elinewidth=0.7,
            label=plain(level),
        )
    axis.set_xticks(places, [plain(level) for level in results.factors[one]])
    axis.set_xlabel(plain(one))
    axis.set_title(heading(results, metric), fontsize=9)
    # Below the panel: inside it would lie over intervals.
    axis.legend(
        title=plain(other),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=len(results.factors[other]),
        fontsize=7,
        title_fontsize=7,
        frameon=False,
        columnspacing=1.0,
        handletextpad=0.3,
    )
    tidy(axis)


def _bars(entries: Sequence[Estimate], scale: float) -> list[list[float]] | None:
    """Intervals as matplotlib wants them: how far below each value, how far above; None without intervals."""
    ends = [
        (entry.value - entry.low, entry.high - entry.value)
        for entry in entries
        if entry.low is not None and entry.high is not None
    ]
    if len(ends) < len(entries):
        return None
    return [[max(0.0, scale * below) for below, _ in ends], [max(0.0, scale * above) for _, above in ends]]


def all_pictures(results: Results, form: str = "svg") -> list[tuple[str, str, bytes]]:
    """File name, caption and bytes of every picture that these results allow."""
    made = (
        ("cells", "Every cell, metric by metric; the dashed line is the base.", cells_picture),
        ("effects", "Main effects: the mean over the other factors, with its t-interval over seeds.", effects_picture),
        ("interactions", "Lines that run parallel say that two factors do not interact.", interactions_picture),
        (
            "pareto",
            "A ring is a cell that none beats in both metrics; lines join the best of a series; the star is the base.",
            pareto_picture,
        ),
    )
    return [(name, text, found) for name, text, draw in made if (found := draw(results, form)) is not None]
