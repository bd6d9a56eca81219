"""Writing an artifact: an attempt's parts and files, invisible until committed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbpo_core import tables
from mbpo_core.errors import StoreError
from mbpo_core.records import Dropped, Record
from mbpo_core.stage import ArtifactRef, StageSpec
from mbpo_core.store import digests
from mbpo_core.store.attempts import Leftovers, Share, ShareDone, new_attempt, part_name
from mbpo_core.store.checks import ArtifactFolder
from mbpo_core.store.dropping import DroppedRows
from mbpo_core.store.files import check_path, naming_full_disks
from mbpo_core.store.manifest import DROPPED, MAIN, Manifest, PartInfo, Sidecar, StoredFile
from mbpo_core.store.migrations import table_info
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.tables import Row


def table_records(spec: StageSpec) -> dict[str, type[Record]]:
    """The record of each table a stage writes."""
    main = {MAIN: spec.record} if spec.record is not None else {}
    return {**main, **spec.tables}


@dataclass
class Span:
    """One unfinished part; the PartWriter that stages get."""

    writer: ArtifactWriter
    table: str
    index: int
    start: int
    stop: int

    def finish(self, rows: Sequence[Row], dropped: Sequence[Dropped] = ()) -> None:
        """Write the part's rows and dead letters, and mark it done."""
        self.writer.finish_part(self, rows, dropped)


@dataclass(frozen=True)
class Outcome:
    """What a finished attempt amounts to."""

    content: str
    parts: list[PartInfo]
    files: list[StoredFile]
    rows: dict[str, int]
    total: int
    dropped: dict[str, int]
    seconds: float
    cpu_seconds: float


@dataclass
class _Table:
    total: int
    part_rows: int
    done: dict[int, Sidecar] = field(default_factory=dict)  # by part number

    def spans(self) -> Iterator[tuple[int, int, int]]:
        for index, start in enumerate(range(0, self.total, self.part_rows)):
            yield index, start, min(start + self.part_rows, self.total)

    def missing(self) -> list[int]:
        return [index for index, _, _ in self.spans() if index not in self.done]

    def in_order(self) -> list[Sidecar]:
        return [self.done[index] for index in sorted(self.done)]


class ArtifactWriter:
    """The Writer that stages get; see `mbpo_core.stage.Writer` for what each method does.

    Args:
        place: the artifact's folder.
        code: code digest of the stage.
        leftovers: finished parts of older attempts; None adopts nothing.
        share: makes only these parts, and adopts none: whoever puts the shares together does. Nothing is sealed.
    """

    def __init__(
        self,
        place: ArtifactFolder,
        spec: StageSpec,
        *,
        config: Any,
        digest: str,
        code: str,
        leftovers: Leftovers | None = None,
        share: Share | None = None,
    ) -> None:
        self._artifact, self._files, self._base = place, place.files, place.base
        self._spec, self._code, self._digest = spec, code, digest
        self._records = table_records(spec)
        self._share = share
        self.attempt = share.attempt if share else new_attempt()
        self._leftovers = leftovers
        self._dropped = DroppedRows(spec, getattr(config, "max_dropped_share", None))
        self._tables: dict[str, _Table] = {}
        self._named: dict[str, StoredFile] = {}
        self._mark = clock()

    def parts(self, total: int, part_rows: int, batch: int = 1, *, table: str = MAIN) -> Iterator[Span]:
        """The unfinished parts over `total` inputs; part_rows is rounded up to whole batches.

        Raises:
            StoreError: the stage has no such table, or asked for other parts before.
            TooManyDropped: the parts adopted from an older attempt already hold too many dropped rows.
        """
        if table not in self._records:
            raise StoreError(
                f"stage {self._spec.name} writes no table {table!r}", expected=f"one of {', '.join(self._records)}"
            )
        asked = _Table(total, -(-max(1, part_rows) // max(1, batch)) * max(1, batch))
        here = self._tables.setdefault(table, asked)
        if (here.total, here.part_rows) != (asked.total, asked.part_rows):
            raise StoreError(f"table {table} was already begun with {here.total} inputs", where=self._spec.name)
        self._dropped.expect(total)
        spans = [Span(self, table, *span) for span in here.spans()]
        if self._share is not None:
            yield from (span for span in spans if self._mine(self._share, span))
            return
        for span in spans:  # all before the first is handed out, so that a hopeless stage ends at once
            if span.index not in here.done:
                self._adopt(span)
        yield from (span for span in spans if span.index not in here.done)

    def finished(self, table: str = MAIN) -> list[range]:
        """The inputs of the finished parts, and in a share of those that an earlier attempt finished for any share.

        Whether these are intact is looked at when they are adopted; here they are only counted.
        """
        here = self._tables[table]
        older = self._leftovers.sidecars if self._share and self._leftovers else {}
        return [
            range(start, stop)
            for index, start, stop in here.spans()
            if index in here.done or (table, start, stop) in older
        ]

    def finish_part(self, span: Span, rows: Sequence[Row], dropped: Sequence[Dropped]) -> None:
        """Write one part; its sidecar last, because that is what makes it done."""
        record, name = self._records[span.table], part_name(span.table, span.index)
        if span.index in self._tables[span.table].done:
            raise StoreError(f"{name} was already finished", where=f"stage {self._spec.name}")
        where = f"stage {self._spec.name}, table {span.table}, part {span.index}"
        kept = tables.check_rows(rows, record, where=where)
        letters = tables.check_rows(dropped, Dropped, where=f"{where}, dropped rows")
        self._dropped.check_reasons(letters)
        file = self._put(f"{name}.parquet", tables.encode(tables.to_table(kept, record)))
        dropped_file = None
        if letters:
            data = tables.encode(tables.to_table(letters, Dropped))
            dropped_file = self._put(f"{part_name(DROPPED, span.index, span.table)}.parquet", data)
        now = clock()
        sidecar = Sidecar(
            table=span.table,
            index=span.index,
            start=span.start,
            stop=span.stop,
            rows=len(kept),
            file=file,
            dropped_rows=len(letters),
            dropped_file=dropped_file,
            reasons=self._dropped.count(letters),
            examples=self._dropped.examples(letters),
            # Shares are made at the same time; what they add up to is the time that passed.
            seconds=(now[0] - self._mark[0]) / (self._share.of if self._share else 1),
            cpu_seconds=now[1] - self._mark[1],
            code=self._code,
            row_digests=digests.pack(digests.row_digests(kept, tables.volatile_columns(record))),
            dropped_digests=digests.pack(digests.row_digests(letters)),
        )
        self._mark = now
        self._done(sidecar)

    def reader(self, table: str) -> ArtifactReader:
        """Read back a table of this attempt; it is also the returned reader's main table.

        Raises:
            StoreError: a part of the table was never finished.
            ShareDone: this is a share, which has not all parts.
        """
        if self._share is not None:
            raise ShareDone
        self._check_complete(table)
        parts = [PartInfo(**sidecar.model_dump(include=set(PartInfo.model_fields))) for sidecar in self._all()]
        info = {name: table_info(record) for name, record in self._records.items()}
        draft = Manifest.model_construct(
            stage=self._spec.name, key="", digest=self._digest, content="", attempt=self.attempt, tables=info,
            parts=parts, files=list(self._named.values()),
        )  # type: ignore[call-arg]  # fmt: skip
        ref = ArtifactRef(stage=self._spec.name, digest=self._digest, content="", uri="")
        return ArtifactReader(self._artifact, draft, ref, self._records, main=table)

    def scratch(self) -> Path:
        """A local folder that outlives a killed attempt of the same digest and code."""
        folder = self._files.scratch(scratch_path(self._spec.name, self._digest, self._code))
        with naming_full_disks(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def cache(self, name: str) -> Path:
        """A local folder that other artifacts of the same stage and code share; it need not exist.

        For what can be computed again: garbage collection takes it away once nobody writes there any more.
        """
        return self._files.scratch(f"cache/{name}-{self._code[:8]}")

    def add_folder(self, name: str, source: Path, *, content: bool = True) -> None:
        """Publish a local folder's files under `name/`; hidden files are left out.

        Args:
            content: False for resumable state whose bytes carry time stamps; it stays out of the content digest.
        """
        if not source.is_dir():
            raise StoreError(f"{source} is not a folder", where=self._spec.name, remedy="Make it before publishing it.")
        self._refuse_table_names(check_path(name))
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                target = f"{name}/{inside.as_posix()}"
                size, sha256 = self._files.upload(path, self._place(target))
                stored = StoredFile(path=self._inside(target), size=size, sha256=sha256, content=content)
                self._named[target] = stored

    def add_json(self, name: str, value: Mapping[str, Any], *, content: bool = True) -> None:
        """Publish a JSON file."""
        self.add_text(name, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", content=content)

    def add_text(self, name: str, value: str, *, content: bool = True) -> None:
        """Publish a UTF-8 text file."""
        self._refuse_table_names(name)
        stored = self._put(check_path(name), value.encode())
        self._named[name] = stored.model_copy(update={"content": content})

    def seal(self) -> Outcome:
        """Check that the attempt is whole, and add it up.

        Raises:
            StoreError: a part was never finished, or the main table was never begun.
            TooManyDropped, DataError: too many rows were dropped, or none was kept.
        """
        for table in self._tables:
            self._check_complete(table)
        if self._spec.record is not None and MAIN not in self._tables:
            raise StoreError(f"stage {self._spec.name} ended without writing its main table")
        rows = {name: sum(part.rows for part in self._parts(name)) for name in self._records}
        self._dropped.settle(rows.get(MAIN))
        packed = {name: [part.row_digests for part in self._parts(name)] for name in self._records}
        packed |= {f"{DROPPED}/{name}": [part.dropped_digests for part in self._parts(name)] for name in self._records}
        hashes = {name: stored.sha256 for name, stored in self._named.items() if stored.content}
        sidecars, now = self._all(), clock()
        return Outcome(
            content=digests.content_digest(packed, hashes),
            parts=[PartInfo(**sidecar.model_dump(include=set(PartInfo.model_fields))) for sidecar in sidecars],
            files=[self._named[name] for name in sorted(self._named)],
            rows=rows,
            total=self._dropped.total,
            dropped=dict(self._dropped.counts),
            seconds=sum(part.seconds for part in sidecars) + now[0] - self._mark[0],
            cpu_seconds=sum(part.cpu_seconds for part in sidecars) + now[1] - self._mark[1],
        )

    def _mine(self, share: Share, span: Span) -> bool:
        if span.index % share.of != share.index or span.index in self._tables[span.table].done:
            return False
        return self._leftovers is None or not self._leftovers.has(span.table, span.start, span.stop)

    def _adopt(self, span: Span) -> None:
        if self._leftovers is None:
            return
        sidecar = self._leftovers.adopt(span.table, span.index, span.start, span.stop, self.attempt)
        if sidecar is not None:
            self._done(sidecar)

    def _done(self, sidecar: Sidecar) -> None:
        name = part_name(sidecar.table, sidecar.index)
        self._files.write(self._place(f"{name}.json"), sidecar.model_dump_json(indent=1).encode())
        self._tables[sidecar.table].done[sidecar.index] = sidecar
        self._dropped.add(sidecar)

    def _check_complete(self, table: str) -> None:
        missing = self._tables[table].missing() if table in self._tables else ["all"]
        if missing:
            raise StoreError(
                f"{len(missing)} parts of table {table} were never finished, first {missing[0]}",
                where=f"stage {self._spec.name}",
                remedy="A stage calls finish() on every part it is given.",
            )

    def _parts(self, table: str) -> list[Sidecar]:
        return self._tables[table].in_order() if table in self._tables else []

    def _all(self) -> list[Sidecar]:
        return [sidecar for name in self._records for sidecar in self._parts(name)]

    def _put(self, name: str, data: bytes) -> StoredFile:
        self._files.write(self._place(name), data)
        return StoredFile(path=self._inside(name), size=len(data), sha256=digests.bytes_digest(data))

    def _refuse_table_names(self, name: str) -> None:
        if name.split("-")[0] in (*self._records, DROPPED):
            raise StoreError(f"{name!r} is kept for parts of tables", where=self._spec.name, remedy="Rename the file.")

    def _inside(self, name: str) -> str:
        return f"{self.attempt}/{name}"

    def _place(self, name: str) -> str:
        return f"{self._base}/{self.attempt}/{name}"


def scratch_path(stage: str, digest: str, code: str) -> str:
    """Where a stage's scratch folder lies; other code never sees it."""
    return f"scratch/{stage}/{digest}-{code[:8]}"


def clock() -> tuple[float, float]:
    """Wall-clock seconds, and CPU seconds of this process and its ended children."""
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system
