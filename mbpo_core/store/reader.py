"""Reading a committed artifact: only what its manifest names, checked as it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mbpo_core.errors import StoreError
from mbpo_core.records import Dropped, Record
from mbpo_core.stage import ArtifactRef
from mbpo_core.store.checks import ArtifactFolder
from mbpo_core.store.files import file_sha256
from mbpo_core.store.manifest import DROPPED, MAIN, Manifest, StoredFile
from mbpo_core.store.migrations import Migration, migrations_for
from mbpo_core.store.table_reader import TableReader
from mbpo_core.tables import Row


class ArtifactReader:
    """The Reader that stages get; see `mbpo_core.stage.Reader` for what each method does.

    Args:
        place: where the files are.
        records: today's record of each table, to migrate older ones; tables of unknown stages are read as they are.
        main: the table that is meant where none is named.
        chosen: rising row numbers of the main table that this view shows, 8 bytes each; None shows all.
    """

    def __init__(
        self,
        place: ArtifactFolder,
        manifest: Manifest,
        ref: ArtifactRef,
        records: Mapping[str, type[Record]],
        *,
        main: str = MAIN,
        chosen: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._place, self._records = place, records
        self._main, self._chosen = main, chosen
        self._tables: dict[str, TableReader] = {}
        self.manifest, self.ref = manifest, ref

    def count(self, table: str = MAIN) -> int:
        """Rows of one of the artifact's tables; "dropped" counts the dead letters."""
        if self._chosen is not None and self._named(table) == self._main:
            return len(self._chosen)
        return len(self._table(table))

    def slice(self, start: int, stop: int, table: str = MAIN, columns: Sequence[str] | None = None) -> list[Row]:
        """Rows start..stop-1, clamped to the table."""
        reader = self._table(table)
        if self._chosen is None or self._named(table) != self._main:
            return list(reader.slice(start, stop, columns))
        return list(reader.take(self._chosen[max(0, start) : max(0, stop)], columns))

    def rows(self, table: str = MAIN, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows in order, a row group in memory at a time."""
        reader = self._table(table)
        shown = self._chosen if self._named(table) == self._main else None
        yield from reader.take(range(len(reader)) if shown is None else shown, columns)

    def where(self, column: str, values: Sequence[Any]) -> ArtifactReader:
        """A view of the rows of the main table whose column is one of values."""
        wanted = frozenset(values)
        numbers = self._chosen if self._chosen is not None else range(self.count())
        rows = zip(numbers, self.rows(columns=[column]), strict=True)
        chosen = np.fromiter((number for number, row in rows if row[column] in wanted), dtype=np.int64)
        return ArtifactReader(self._place, self.manifest, self.ref, self._records, main=self._main, chosen=chosen)

    def share(self, index: int, of: int) -> ArtifactReader:
        """A view of every `of`-th row of the main table, from row `index` on."""
        numbers = self._chosen if self._chosen is not None else np.arange(self.count(), dtype=np.int64)
        return ArtifactReader(
            self._place, self.manifest, self.ref, self._records, main=self._main, chosen=numbers[index::of]
        )

    def folder(self, name: str) -> Path:
        """The committed folder on a local disk, every file checked."""
        inside = [file for file in self.manifest.files if file.path.startswith(f"{self.manifest.attempt}/{name}/")]
        if not inside:
            raise StoreError(f"the artifact has no folder {name!r}", where=self._where(), expected=self._offers())
        files, inner = self._place.files, f"{self.manifest.attempt}/{name}"
        if files.local is not None:
            self._place.check(inside)
            return files.local / self._place.base / inner
        copy = files.scratch(f"copies/{self.manifest.digest}-{self.manifest.attempt}") / name
        for file in inside:
            target = copy / file.path.removeprefix(f"{inner}/")
            if target.exists() and file_sha256(target) == file.sha256:
                continue
            files.download(self._place.path(file), target)
            if file_sha256(target) != file.sha256:
                target.unlink()
                self._place.check([file])  # names what is damaged
                raise StoreError("the copy of a file is damaged", where=str(target), remedy="Run again.")
        return copy

    def json(self, name: str) -> dict[str, Any]:
        """A committed JSON file."""
        value: dict[str, Any] = json.loads(self.text(name))
        return value

    def text(self, name: str) -> str:
        """A committed text file."""
        path = f"{self.manifest.attempt}/{name}"
        for file in self.manifest.files:
            if file.path == path:
                return self._place.read(file).decode("utf-8")
        raise StoreError(f"the artifact has no file {name!r}", where=self._where(), expected=self._offers())

    def _named(self, table: str) -> str:
        return self._main if table == MAIN else table

    def _table(self, table: str) -> TableReader:
        name = self._named(table)
        if name not in self._tables:
            if name != DROPPED and name not in self.manifest.tables:
                raise StoreError(f"the artifact has no table {name!r}", where=self._where(), expected=self._offers())
            self._tables[name] = TableReader(
                self._place, self._stored(name), self._migrations(name), f"{self._where()}, table {name}"
            )
        return self._tables[name]

    def _stored(self, table: str) -> list[tuple[StoredFile, int]]:
        if table == DROPPED:
            parts = [part for part in self.manifest.parts if part.dropped_file]
            return [(part.dropped_file, part.dropped_rows) for part in parts if part.dropped_file]
        return [(part.file, part.rows) for part in self.manifest.parts if part.table == table]

    def _migrations(self, table: str) -> list[Migration]:
        record = Dropped if table == DROPPED else self._records.get(table)
        written = self.manifest.tables.get(table)
        if record is None or written is None:
            return []
        return migrations_for(written, record, where=f"{self._where()}, table {table}")

    def _where(self) -> str:
        return f"{self.ref.key or self.ref.stage} artifact {self.ref.digest[:12]}"

    def _offers(self) -> str:
        files = [file.path.partition("/")[2] for file in self.manifest.files]
        return f"one of {', '.join([*self.manifest.tables, DROPPED, *files])}"
