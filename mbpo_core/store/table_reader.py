"""Reading one table of an artifact: a sequence of Parquet parts, checked as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from mbpo_core import tables
from mbpo_core.errors import DamagedArtifact, SchemaError
from mbpo_core.store.checks import ArtifactFolder
from mbpo_core.store.manifest import StoredFile
from mbpo_core.store.migrations import Migration
from mbpo_core.tables import Row


class TableReader:
    """One table of an artifact: a sequence of Parquet parts.

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
        start, stop = max(0, start), min(stop, len(self))
        for part in range(len(self._stored)):
            first, last = self._offsets[part], self._offsets[part + 1]
            if first < stop and last > start:
                yield from self._part_rows(part, max(start, first) - first, min(stop, last) - first, columns)

    def _part_rows(self, part: int, start: int, stop: int, columns: Sequence[str] | None) -> Iterator[Row]:
        starts = self._starts(part)
        for group, (first, last) in enumerate(pairwise(starts)):
            if first < stop and last > start:
                table = self._group(part, group, None if self._migrations else columns)
                begin = max(start, first)
                rows = table.slice(begin - first, min(stop, last) - begin).to_pylist()
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
