"""How much is read for what is asked: row groups, columns, and the memory of a view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mbpo_core import tables
from mbpo_core.store import Store
from mbpo_core.store import table_reader as module
from mbpo_core.store.checks import MEMO, HashMemo
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.store.roots import open_files
from tests.execution.conftest import make
from tests.execution.fakes import DRAWING, STAGES


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactReader:
    """100 rows in parts of 20, in row groups of 5."""

    def groups_of_five(table: Any) -> Any:
        return (table.slice(start, 5) for start in range(0, table.num_rows, 5))

    monkeypatch.setattr(tables, "_groups", groups_of_five)
    store = Store(tmp_path, stages=STAGES)
    return store.reader(make(store, DRAWING, count=100, part_rows=20))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, list[str] | None]]:
    """(part, row group, columns) of every row group that is read."""
    seen: list[tuple[str, int, list[str] | None]] = []
    real = tables.open_parquet

    class Watched:
        def __init__(self, source: Any, where: str) -> None:
            self._file, self._where = real(source, where=where), where

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def read_row_group(self, group: int, columns: list[str] | None) -> Any:
            seen.append((Path(self._where).stem, group, columns))
            return self._file.read_row_group(group, columns=columns)

    monkeypatch.setattr(module.tables, "open_parquet", lambda source, where: Watched(source, where))
    return seen


def ids(rows: Any) -> list[int]:
    return [int(row["sample_id"][1:]) for row in rows]


def test_a_slice_reads_only_the_row_groups_it_lies_in(reader: ArtifactReader, read: list[Any]) -> None:
    assert ids(reader.slice(18, 27, columns=["sample_id"])) == list(range(18, 27))
    assert read == [
        ("part-00000", 3, ["sample_id"]),
        ("part-00001", 0, ["sample_id"]),
        ("part-00001", 1, ["sample_id"]),
    ]


def test_batches_of_a_row_group_read_it_once(reader: ArtifactReader, read: list[Any]) -> None:
    for start in range(0, 100, 2):
        assert ids(reader.slice(start, start + 2)) == [start, start + 1]
    assert len(read) == 20


def test_a_view_reads_each_row_group_once_and_holds_one_at_a_time(reader: ArtifactReader, read: list[Any]) -> None:
    wanted = [3, 4, 11, 12, 14, 37, 39, 62, 98]
    view = reader.where("sample_id", [f"s{number:03d}" for number in wanted])
    assert view._chosen is not None
    assert view._chosen.nbytes == 8 * len(wanted)  # no Python object a row
    read.clear()
    assert ids(view.rows()) == wanted
    assert [(part, group) for part, group, _ in read] == [
        ("part-00000", 0), ("part-00000", 2), ("part-00001", 3), ("part-00003", 0), ("part-00004", 3),
    ]  # fmt: skip
    read.clear()
    assert [ids(view.slice(place, place + 1)) for place in range(len(wanted))] == [[number] for number in wanted]
    assert len(read) == 5
    assert ids(view.slice(2, 7)) == wanted[2:7]
    assert ids(view.slice(7, 99)) == wanted[7:]
    assert view.slice(9, 99) == []


def test_shares_of_a_table_are_every_nth_row_and_miss_none(reader: ArtifactReader, read: list[Any]) -> None:
    """Of all rows and of a view, streamed and sliced; 8 bytes a row, and each row group is read once."""
    shares = [reader.share(index, 7) for index in range(7)]
    assert [share.count() for share in shares] == [15, 15, 14, 14, 14, 14, 14]
    assert [ids(share.rows(columns=["sample_id"])) for share in shares] == [list(range(i, 100, 7)) for i in range(7)]
    assert shares[0]._chosen is not None
    assert shares[0]._chosen.nbytes == 8 * 15
    read.clear()
    assert ids(shares[2].slice(3, 5)) == [23, 30]
    assert [(part, group) for part, group, _ in read] == [("part-00001", 0), ("part-00001", 2)]
    wanted = [3, 4, 11, 12, 14, 37, 39, 62, 98]
    view = reader.where("sample_id", [f"s{number:03d}" for number in wanted])
    assert [ids(view.share(index, 2).rows()) for index in (0, 1)] == [wanted[::2], wanted[1::2]]
    assert ids(view.share(1, 3).share(0, 2).rows()) == wanted[1::3][::2]
    assert ids(reader.share(0, 1).rows()) == list(range(100))
    assert reader.share(100, 200).count() == 0
    assert list(reader.share(100, 200).rows()) == []


def test_streaming_all_rows_keeps_one_row_group(reader: ArtifactReader, read: list[Any]) -> None:
    rows = reader.rows(columns=["sample_id"])
    assert ids(next(rows) for _ in range(7)) == list(range(7))
    assert len(read) == 2  # nothing is read before it is asked for
    assert ids(rows) == list(range(7, 100))


def test_hashes_are_written_down_as_they_grow_not_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbpo_core.store.memo._FRESH_S", -1.0)
    files, memo = open_files(tmp_path / "tree"), HashMemo(open_files(tmp_path / "tree"), MEMO)
    written = 0

    def counted(path: str, data: bytes) -> None:
        nonlocal written
        written += 1
        type(files).write(files, path, data)

    monkeypatch.setattr(memo._files, "write", counted)
    for number in range(200):
        file = tmp_path / str(number)
        file.write_text(str(number))
        memo.local(file)
        memo.save(once_worth_it=True)
    assert written < 50
    memo.save()
    again = HashMemo(files, MEMO)
    assert again.local(tmp_path / "199") == memo.local(tmp_path / "199")
    assert len(again._table()) == 200
