"""Implied rewards of the pairs: how far the chosen answer leads, by its words and by its image.

    text margin  = r(chosen, clean image) - r(rejected, clean image)
    image margin = r(chosen, clean image) - r(chosen, rejected image),    r = dpo_beta (log pi - log pi_ref)

MFPO calls their last values reward bars. A method that moves both alike has balance min / max near 1; one that follows
the text alone has it near 0.

Source: MFPO arXiv:2410.15334, Fig. 2; the balance as one number is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.objectives.reward_balance import reward_balance
from mbpo_core.reports.charts import Chart, Series, bars, line_chart

LAST = 10  # steps that the bars are means of: one step is a handful of pairs

_SIDES = (("text", "s-text", "rejected_reward"), ("image", "s-image", "wrong_image_reward"))
"""(name, style class, column of what chosen_reward must lead)."""


def margin_charts(steps: Sequence[Mapping[str, Any]], starts: Sequence[float]) -> list[Chart]:
    """The margins over the steps, and the reward bars; nothing where no step has a reward.

    Args:
        steps: rows of metrics with their place `at`.
        starts: where rounds start.
    """
    lines = [Series(f"{name} margin", style, _points(steps, column)) for name, style, column in _SIDES]
    if not any(line.numbers for line in lines):
        return []
    note = "of chosen: over rejected (text), over itself under the rejected image (image)"
    curves = line_chart("Implied rewards", lines, y_label="implied reward", marks=starts, note=note)
    last = [(line.name, line.style, _mean([y for _, y in line.numbers[-LAST:]])) for line in lines if line.numbers]
    return [curves, bars("Reward bars", last, note=_bars_note([value for *_, value in last], lines))]


def _points(steps: Sequence[Mapping[str, Any]], column: str) -> list[tuple[float, float | None]]:
    return [(step["at"], _lead(step.get("chosen_reward"), step.get(column))) for step in steps]


def _lead(chosen: float | None, other: float | None) -> float | None:
    return None if chosen is None or other is None else chosen - other


def _bars_note(values: Sequence[float], lines: Sequence[Series]) -> str:
    counted = min(LAST, max(len(line.numbers) for line in lines))
    note = "of the last step" if counted == 1 else f"means of the last {counted} steps"
    if len(values) < 2:
        return note
    found = reward_balance(*values)
    if found is None:
        return f"{note}; no balance, as neither margin is positive"
    return f"{note}; balance min / max {found:.2f}".replace("-", "−")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
