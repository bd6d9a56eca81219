"""The rows of a round's inputs, read where they lie: pictures of all groups would fill every process's memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.stage import Row

_PARTS = {"rejected": "rejected response", "rejected_images": "rejected image"}

GROUP_ROWS = 32  # rows of a row group in a job's Parquet: what is read to show one prompt


class Table(Protocol):
    """Rows in an order; an artifact's reader is one."""

    def count(self) -> int:
        """How many."""

    def rows(self, *, columns: Sequence[str]) -> Iterator[Row]:
        """All rows in order, streamed."""

    def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
        """Rows start..stop-1."""


@dataclass(frozen=True)
class ListTable:
    """Rows that are in memory anyway."""

    content: Sequence[Row] = ()

    def count(self) -> int:
        return len(self.content)

    def rows(self, *, columns: Sequence[str]) -> Iterator[Row]:
        return ({name: row[name] for name in columns} for row in self.content)

    def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
        return [{name: row[name] for name in columns} for row in self.content[start:stop]]


@dataclass(frozen=True)
class Picked:
    """Some rows of a table, in the table's order.

    Attributes:
        places: rising row numbers in the table.
    """

    table: Table
    places: npt.NDArray[np.int64]

    def count(self) -> int:
        return len(self.places)

    def rows(self, *, columns: Sequence[str]) -> Iterator[Row]:
        rows, next_row = self.table.rows(columns=columns), 0
        for place in self.places.tolist():
            yield from islice(rows, place - next_row, place - next_row + 1)
            next_row = place + 1

    def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
        places = self.places[start:stop].tolist()
        return [row for place in places for row in self.table.slice(place, place + 1, columns=columns)]


class ParquetTable:
    """A Parquet file, of which one row group at a time is in memory."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, memory_map=True)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts: list[int] = [0, *accumulate(sizes)]
        self._last: tuple[Any, list[Row]] = (None, [])

    def count(self) -> int:
        return self._starts[-1]

    def rows(self, *, columns: Sequence[str]) -> Iterator[Row]:
        for group in range(len(self._starts) - 1):
            yield from self._file.read_row_group(group, columns=list(columns)).to_pylist()

    def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
        found: list[Row] = []
        while start < min(stop, self.count()):
            group = bisect_right(self._starts, start) - 1
            first, end = self._starts[group : group + 2]
            found += self._group(group, columns)[start - first : stop - first]
            start = end
        return found

    def _group(self, group: int, columns: Sequence[str]) -> list[Row]:
        key = (group, *columns)
        if self._last[0] != key:
            self._last = (key, self._file.read_row_group(group, columns=list(columns)).to_pylist())
        return self._last[1]


@dataclass(frozen=True)
class WithImages:
    """Pairs whose rejected images come from another table: negatives that were made for them.

    Attributes:
        pairs: those that have such a negative.
        negatives: their negatives, row for row.
    """

    pairs: Table
    negatives: Table

    def count(self) -> int:
        return self.pairs.count()

    def rows(self, *, columns: Sequence[str]) -> Iterator[Row]:
        mine, theirs = self._split(columns)
        made = self.negatives.rows(columns=theirs)
        for row, negative in zip(self.pairs.rows(columns=mine), made, strict=True):
            yield self._joined(row, negative, columns)

    def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
        mine, theirs = self._split(columns)
        rows = zip(
            self.pairs.slice(start, stop, columns=mine), self.negatives.slice(start, stop, columns=theirs), strict=True
        )
        return [self._joined(row, negative, columns) for row, negative in rows]

    @staticmethod
    def _split(columns: Sequence[str]) -> tuple[list[str], list[str]]:
        theirs = [name for name in columns if name == "rejected_images"]
        return ["sample_id", *(name for name in columns if name not in (*theirs, "sample_id"))], ["sample_id", *theirs]

    @staticmethod
    def _joined(row: Row, negative: Row, columns: Sequence[str]) -> Row:
        if row["sample_id"] != negative["sample_id"]:
            raise DataError(
                f"pair {row['sample_id']} meets the rejected image of {negative['sample_id']}",
                where="training, pairs and negatives",
                expected="negatives that were made for these pairs, in their order",
                remedy="Run the negatives of the images again.",
            )
        whole = row | negative
        return {name: whole[name] for name in columns}


def join_images(pairs: Table, negatives: Table) -> WithImages:
    """Pairs with the rejected images that were made for them; pairs without any are left out."""
    made = [row["sample_id"] for row in negatives.rows(columns=("sample_id",))]
    wanted = set(made)
    ids = (row["sample_id"] for row in pairs.rows(columns=("sample_id",)))
    places = np.array([place for place, name in enumerate(ids) if name in wanted], dtype=np.int64)
    return WithImages(Picked(pairs, places), negatives)


def without_replaced(rollouts: Table) -> Table:
    """Rollouts without the groups that agreed and were replaced: a stand-in has their place in a step, too.

    A group's stand-ins follow it (`rollouts.redraw`); of each such chain the last group is kept.
    """
    stands_in = [bool(row["stand_in"]) for row in rollouts.rows(columns=("stand_in",))]
    if not any(stands_in):
        return rollouts
    kept = [place for place, follower in enumerate([*stands_in[1:], False]) if not follower]
    return Picked(rollouts, np.array(kept, dtype=np.int64))


def missing_parts(pairs: Table, config: TrainingConfig) -> dict[int, str]:
    """Pairs that lack what the objective looks at, by row number: "rejected response" or "rejected image"."""
    entry = config.pair_passes
    needs = entry.needs if entry is not None else ""
    missing: dict[int, str] = {}
    columns = [name for name, part in _PARTS.items() if part in needs]
    for place, row in enumerate(pairs.rows(columns=columns) if columns else ()):
        for name in columns:
            if not row[name]:
                missing[place] = _PARTS[name]
    return missing


def write_table(path: Path, table: Table, schema: Any) -> None:
    """Write a table's columns named by an Arrow schema, a row group in memory at a time."""
    rows = table.rows(columns=schema.names)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while chunk := list(islice(rows, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
