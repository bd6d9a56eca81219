"""What a metric is: a function from one answer to a numerator and a denominator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mbpo_core.evaluation.outcomes import Outcome

Count = Callable[[Outcome], tuple[float, float] | None]
"""(numerator, denominator) of one answer; None where the question is not of this metric.

Whether it is None may depend on the question only, never on the answer, so that policies stay paired.
"""


@dataclass(frozen=True)
class Metric:
    """One line of the table: value = sum of numerators / sum of denominators over its questions.

    Everything else follows from this form: rates get Wilson intervals, other ratios and all differences the paired
    bootstrap over questions.

    Attributes:
        name: key in the summary.
        label: for people; read under the heading `group`.
        count: what one answer adds.
        better: which way is an improvement; empty where neither is.
        rate: numerators and denominators are 0 or 1.
        unit: "share" is shown in percent, "words" as it is.
    """

    name: str
    label: str
    group: str
    count: Count
    better: Literal["higher", "lower", ""] = "higher"
    rate: bool = True
    unit: Literal["share", "words"] = "share"


def flag(value: bool) -> tuple[float, float]:
    """One question, counted if true."""
    return float(value), 1.0
