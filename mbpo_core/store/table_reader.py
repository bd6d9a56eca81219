"""Reading one table of an artifact: a sequence of Parquet parts, checked as it is read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mbpo_core import tables
from mbpo_core.errors import DamagedArtifact, SchemaError
from mbpo_core.store.checks import ArtifactFolder
from mbpo_core.store.manifest import StoredFile
from mbpo_core.store.migrations import Migration
from mbpo_core.tables import Row


class TableReader:
    """One table of an artifact: a sequence of Parquet parts, of which one row group at a time is in memory.

    Args:
        stored: the parts' files, in order.
        migrations: applied to each row, in order; empty for a table of today's schema.
        where: names the table in errors.
    """

    def __init__(
        self,
        place: ArtifactFolder,
        stored: Sequence[tuple[StoredFile, int]],
        migrations: list[Migration],
        where: str,
    ) -> None:
        self._place, self._where = place, where
        self._stored, self._migrations = [file for file, _ in stored], migrations
        self._offsets = [0, *accumulate(rows for _, rows in stored)]
        self._group_starts: dict[int, list[int]] = {}
        self._last: tuple[Any, Any] = (None, None)  # the row group read last: row-by-row access is common

    def __len__(self) -> int:
        return self._offsets[-1]

    def slice(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows start..stop-1, clamped to the table."""
        return self.take(range(max(0, start), min(stop, len(self))), columns)

    def take(self, numbers: Any, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """The rows of these numbers; each row group is read once.

        Args:
            numbers: a range, or an array of rising row numbers of the table.
            columns: all if None.
        """
        done = 0
        while done < len(numbers):
            part = bisect_right(self._offsets, int(numbers[done])) - 1
            starts = self._starts(part)
            group = bisect_right(starts, int(numbers[done]) - self._offsets[part]) - 1
            first, end = (self._offsets[part] + starts[place] for place in (group, group + 1))
            stop = done + int(np.searchsorted(numbers[done : done + end - first], end))
            yield from self._rows(part, group, numbers[done:stop], first, columns)
            done = stop

    def _rows(self, part: int, group: int, numbers: Any, first: int, columns: Sequence[str] | None) -> Iterator[Row]:
        table = self._group(part, group, None if self._migrations else columns)
        begin, count = int(numbers[0]) - first, len(numbers)
        if int(numbers[-1]) - first == begin + count - 1:
            table = table.slice(begin, count)
        else:
            table = table.take(np.asarray(numbers) - first)
        rows = table.to_pylist()
        yield from self._migrated(rows, columns) if self._migrations else rows

    def _migrated(self, rows: list[Row], columns: Sequence[str] | None) -> Iterator[Row]:
        for row in rows:
            for migrate in self._migrations:
                row = migrate(row)
            yield row if columns is None else {name: row[name] for name in columns}

    def _starts(self, part: int) -> list[int]:
        if part not in self._group_starts:
            with self._opened(part) as file:
                metadata = file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            if sum(sizes) != self._offsets[part + 1] - self._offsets[part]:
                raise DamagedArtifact(
                    f"the footer counts {sum(sizes)} rows", where=self._place.where(self._stored[part])
                )
            self._group_starts[part] = [0, *accumulate(sizes)]
        return self._group_starts[part]

    def _group(self, part: int, group: int, columns: Sequence[str] | None) -> Any:
        key = (part, group, tuple(columns) if columns is not None else None)
        if self._last[0] != key:
            self._last = (None, None)  # before the next one is read: two may be large
            with self._opened(part) as file, tables.damage_named(self._place.where(self._stored[part])):
                self._last = (key, file.read_row_group(group, columns=self._checked(columns, file.schema_arrow.names)))
        return self._last[1]

    def _opened(self, part: int) -> Any:
        file, files = self._stored[part], self._place.files
        self._place.check([file])
        path = self._place.path(file)
        source = files.local / path if files.local is not None else files.open(path)
        return tables.open_parquet(source, where=self._place.where(file))

    def _checked(self, columns: Sequence[str] | None, there: list[str]) -> list[str] | None:
        missing = [name for name in columns or () if name not in there]
        if missing:
            raise SchemaError(
                f"there is no column {', '.join(missing)}", where=self._where, expected=f"one of {', '.join(there)}"
            )
        return None if columns is None else list(columns)
