"""What every answer adds to every metric, kept in a few bytes each instead of texts and meta."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mbpo_core.errors import DataError
from mbpo_core.evaluation.clusters import Levels
from mbpo_core.evaluation.counting import GroupMetric, Metric, Sums, nothing, width
from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.evaluation.paired import Floats

FACTORS: tuple[str, ...] = ("object", "scene", "seed")
"""What questions may be clustered by, see `Outcome.clusters`."""

_ID_BYTES = 16


@dataclass
class _Answers:
    """One policy's answers: an entry a question, or a group of questions, in each array."""

    columns: list[array[int]]
    ids: bytearray = field(default_factory=bytearray)
    seeds: array[int] = field(default_factory=lambda: array("H"))
    clusters: dict[str, array[int]] = field(default_factory=lambda: {name: array("Q") for name in FACTORS})
    groups: dict[tuple[int, str, str], list[Outcome]] = field(default_factory=dict)
    single: int = 0  # entries that are questions


class Counts:
    """What answers add to the sums of a list of metrics, by policy and question.

    An answer takes some 40 bytes for its question and 4 a metric, as an index into the metric's distinct counts.
    Answers of groups are kept whole until `close`.

    Args:
        metrics: what is counted.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self._codes: list[dict[Sums, int]] = [{} for _ in metrics]  # from 1; 0 means no count
        self._keys = {metric.key for metric in metrics if isinstance(metric, GroupMetric)}
        self._policies: dict[str, _Answers] = {}
        self._orders: dict[str, npt.NDArray[np.int64]] = {}

    def add(self, policy: str, outcome: Outcome, seed: int = 0) -> None:
        """Count one answer for all metrics.

        Args:
            policy: label.
            outcome: the answer.
            seed: number of the run it is of: the same question of two runs is two questions.
        """
        answers = self._policies.setdefault(policy, _Answers([array("I") for _ in self.metrics]))
        self._enter(answers, seed, outcome.sample_id, outcome.clusters, [m.count(outcome) for m in self.metrics])
        answers.single += 1
        for key in self._keys:
            if key in outcome.meta:
                answers.groups.setdefault((seed, key, str(outcome.meta[key])), []).append(outcome)

    def close(self) -> None:
        """Count the groups, which are whole now; no answer may follow."""
        for answers in self._policies.values():
            for (seed, key, name), members in answers.groups.items():
                members.sort(key=lambda outcome: outcome.sample_id)
                counted = [
                    metric.together(members) if isinstance(metric, GroupMetric) and metric.key == key else None
                    for metric in self.metrics
                ]
                self._enter(answers, seed, f"{key}\x1f{name}", members[0].clusters, counted)
            answers.groups.clear()

    def only(self, seed: int) -> Counts:
        """What the run of this number has added; closed, as this must be."""
        part = Counts(self.metrics)
        part._codes = self._codes
        for label, answers in self._policies.items():
            kept = np.asarray(answers.seeds) == seed
            part._policies[label] = _Answers(
                columns=[_of(column, kept) for column in answers.columns],
                ids=bytearray(self._ids(label)[kept].tobytes()),
                seeds=_of(answers.seeds, kept),
                clusters={name: _of(levels, kept) for name, levels in answers.clusters.items()},
                single=int(kept[: answers.single].sum()),  # groups are entered last
            )
        return part

    @property
    def policies(self) -> list[str]:
        """Labels in the order in which they were first counted."""
        return list(self._policies)

    @property
    def seeds(self) -> list[int]:
        """Numbers of the runs."""
        first = next(iter(self._policies.values()), None)
        return sorted(set(first.seeds)) if first else []

    def questions(self) -> int:
        """How many questions each policy answered, groups not among them.

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
        (base, first), *others = ((label, self._ids(label)[self._order(label)]) for label in self._policies)
        for label, ids in others:
            if not np.array_equal(ids, first):
                raise DataError(
                    f"policies {base!r} and {label!r} answered different questions ({len(first)} and {len(ids)})",
                    where="evaluation predictions",
                    expected="the same sample ids, so that differences are paired",
                    remedy="Evaluate both policies on the same samples and settings.",
                )
        return self._policies[base].single

    def members(self, number: int) -> npt.NDArray[np.int64]:
        """Which questions, of all in the order of their ids, belong to the metric of this number."""
        return np.flatnonzero(self._column(number, self.policies[0]))

    def of(self, number: int) -> list[Floats]:
        """(n, K) what a metric's n questions add to its K sums, one array a policy, rows paired."""
        distinct = list(self._codes[number])
        table = np.array([nothing(width(distinct)), *distinct], dtype=np.float64)
        return [table[codes[codes > 0]] for codes in (self._column(number, label) for label in self._policies)]

    def levels(self, names: Sequence[str]) -> Levels:
        """(N, F) integers: the cluster of every question in each factor, in the order of their ids.

        Args:
            names: of FACTORS.
        """
        label = self.policies[0]
        found = [np.frombuffer(self._policies[label].clusters[name], dtype=np.uint64) for name in names]
        return np.stack(found, axis=1).view(np.int64)[self._order(label)]

    def seed_of(self) -> npt.NDArray[np.int64]:
        """(N,) the run of every question, in the order of their ids."""
        label = self.policies[0]
        return np.asarray(self._policies[label].seeds, dtype=np.int64)[self._order(label)]

    def _enter(
        self,
        answers: _Answers,
        seed: int,
        name: str,
        clusters: Mapping[str, str],
        counted: Sequence[Sums | None],
    ) -> None:
        answers.ids += _digest(f"{seed}\x1f{name}", _ID_BYTES)
        answers.seeds.append(seed)
        for factor, levels in answers.clusters.items():
            level = str(seed) if factor == "seed" else clusters[factor]
            levels.append(int.from_bytes(_digest(level, 8), "big"))
        for count, codes, column in zip(counted, self._codes, answers.columns, strict=True):
            column.append(0 if count is None else codes.setdefault(count, len(codes) + 1))

    def _column(self, number: int, policy: str) -> npt.NDArray[np.int64]:
        return np.asarray(self._policies[policy].columns[number], dtype=np.int64)[self._order(policy)]

    def _order(self, policy: str) -> npt.NDArray[np.int64]:
        if policy not in self._orders:
            self._orders[policy] = np.argsort(self._ids(policy), kind="stable")
        return self._orders[policy]

    def _ids(self, policy: str) -> npt.NDArray[np.void]:
        return np.frombuffer(bytes(self._policies[policy].ids), dtype=f"S{_ID_BYTES}")


def _of(numbers: array[int], kept: npt.NDArray[np.bool_]) -> array[int]:
    return array(numbers.typecode, np.asarray(numbers)[kept].tobytes())


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
