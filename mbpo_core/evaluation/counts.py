"""What every answer adds to every metric, kept in two bytes each instead of texts and meta."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mbpo_core.errors import DataError
from mbpo_core.evaluation.counting import Metric
from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.evaluation.paired import Floats

_ID_BYTES = 16
_NO_COUNT = (np.nan, np.nan)


class Counts:
    """Numerators and denominators of a list of metrics, by policy and question.

    An answer takes 16 bytes for its question's id and 2 a metric, as an index into the metric's few distinct counts.

    Args:
        metrics: what is counted.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._codes: list[dict[tuple[float, float], int]] = [{} for _ in metrics]  # from 1; 0 means no count
        self._policies: dict[str, tuple[bytearray, list[array[int]]]] = {}

    def add(self, policy: str, outcome: Outcome) -> None:
        """Count one answer for all metrics."""
        if policy not in self._policies:
            self._policies[policy] = bytearray(), [array("H") for _ in self._metrics]
        ids, columns = self._policies[policy]
        ids += hashlib.blake2b(outcome.sample_id.encode(), digest_size=_ID_BYTES).digest()
        for metric, codes, column in zip(self._metrics, self._codes, columns, strict=True):
            count = metric.count(outcome)
            column.append(0 if count is None else codes.setdefault(count, len(codes) + 1))

    @property
    def policies(self) -> list[str]:
        """Labels in the order in which they were first counted."""
        return list(self._policies)

    def questions(self) -> int:
        """How many questions each policy answered.

        Raises:
            DataError: none, or not the same ones.
        """
        if not self._policies:
            raise DataError(
                "there is nothing to evaluate: no question was answered",
                where="evaluation",
                expected="questions in the split that is evaluated",
                remedy="Check evaluation.split, and the dropped rows of this stage.",
            )
        (base, first), *others = ((label, np.sort(self._ids(label))) for label in self._policies)
        for label, ids in others:
            if not np.array_equal(ids, first):
                raise DataError(
                    f"policies {base!r} and {label!r} answered different questions ({len(first)} and {len(ids)})",
                    where="evaluation predictions",
                    expected="the same sample ids, so that differences are paired",
                    remedy="Evaluate both policies in one run of the stage.",
                )
        return len(first)

    def counted(self, number: int, policy: str) -> bool:
        """Some question of a policy belongs to the metric of this number."""
        return bool(np.frombuffer(self._policies[policy][1][number], dtype=np.uint16).any())

    def of(self, number: int) -> list[Floats]:
        """(n, 2) numerators and denominators over a metric's n questions, one array a policy, rows paired."""
        table = np.array([_NO_COUNT, *self._codes[number]], dtype=np.float64)
        found = []
        for label, (_, columns) in self._policies.items():
            codes = np.frombuffer(columns[number], dtype=np.uint16)[np.argsort(self._ids(label), kind="stable")]
            found.append(table[codes[codes > 0]])
        return found

    def _ids(self, policy: str) -> npt.NDArray[np.void]:
        return np.frombuffer(self._policies[policy][0], dtype=f"S{_ID_BYTES}")
