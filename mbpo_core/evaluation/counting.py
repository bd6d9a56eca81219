"""What a metric is: a function from one answer, or from answers that belong together, to what they add to its sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.evaluation.paired import Floats, ratio

Sums = tuple[float, ...]
Count = Callable[[Outcome], Sums | None]
"""What one answer adds: (numerator, denominator), or as many sums as `Metric.value` reads; None where the question is
not of this metric.

Whether it is None may depend on the question only, never on the answer, so that policies stay paired.
"""
GroupCount = Callable[[Sequence[Outcome]], Sums | None]
"""The same of all answers to the questions of one group, ordered by sample_id."""


def quotient(sums: Floats) -> Floats:
    """(..., 2) sums of numerators and denominators to (...) values; NaN where there is nothing to divide by."""
    return ratio(sums[..., 0], sums[..., 1])


def no_count(outcome: Outcome) -> None:
    """No single answer counts."""


@dataclass(frozen=True)
class Metric:
    """One line of the table: value = sum of numerators / sum of denominators over its questions.

    Everything else follows from this form: rates get Wilson intervals, other ratios and all differences the paired
    bootstrap over questions and their clusters.

    Attributes:
        name: key in the summary.
        label: for people; read under the heading `group`.
        count: what one answer adds.
        better: which way is an improvement; empty where neither is.
        rate: numerators and denominators are 0 or 1.
        unit: "share" is shown in percent, the others as they are.
        value: what the sums come to, along the last axis.
    """

    name: str
    label: str
    group: str
    count: Count
    better: Literal["higher", "lower", ""] = "higher"
    rate: bool = True
    unit: Literal["share", "words", "nats"] = "share"
    value: Callable[[Floats], Floats] = quotient


@dataclass(frozen=True, kw_only=True)
class GroupMetric(Metric):
    """A metric that is told of whole groups: each group stands where a question stands in other metrics.

    Attributes:
        key: the meta key that names a question's group.
        together: what the answers of one group add.
    """

    key: str
    together: GroupCount
    count: Count = no_count


def flag(value: bool) -> tuple[float, float]:
    """One question, counted if true."""
    return float(value), 1.0


def width(sums: Sequence[Sums]) -> int:
    """How many sums a metric's counts have; 2 where there are none."""
    return len(sums[0]) if sums else 2


def nothing(size: int) -> Sums:
    """Stands for a question that is not of a metric."""
    return (np.nan,) * size
