"""Digests: canonical, exact, independent of parts; hashes remembered only while files are unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from mbpo_core.errors import DamagedArtifact, DataError
from mbpo_core.stage import External
from mbpo_core.store import memo
from mbpo_core.store.checks import MEMO, ArtifactFolder, HashMemo, listing
from mbpo_core.store.digests import canonical, code_digest, content_digest, digest_of, pack, row_digests
from mbpo_core.store.files import Files
from mbpo_core.store.manifest import StoredFile
from mbpo_core.store.roots import open_files


def test_canonical_json_is_exact_and_ordered() -> None:
    assert (
        canonical({"b": 0.1 + 0.2, "a": [1, None, True, "é"]})
        == '{"a":[1,null,true,"\\u00e9"],"b":0.30000000000000004}'
    )
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(1) != digest_of(1.0), "an integer is not a float"
    assert digest_of(b"x") != digest_of("x")
    with pytest.raises(TypeError, match="set has no canonical JSON form"):
        digest_of({"a": {1}})


def test_a_row_digest_is_the_hash_of_its_canonical_json() -> None:
    picture = {"bytes": b"\x89PNG", "path": None}
    expected = json.dumps(
        {"id": "a", "images": [{"bytes": {"sha256": hashlib.sha256(b"\x89PNG").hexdigest()}, "path": None}]},
        sort_keys=True,
        separators=(",", ":"),
    )
    row = {"images": [picture], "id": "a", "seconds": 0.1}
    assert row_digests([row], frozenset({"seconds"})) == hashlib.sha256(expected.encode()).digest()
    assert row_digests([row]) != row_digests([row | {"seconds": 0.2}])
    assert row_digests([{"x": 0.0}]) != row_digests([{"x": -0.0}])
    assert row_digests([{"x": float("nan")}]) == row_digests([{"x": float("nan")}])


def test_content_joins_parts_and_separates_tables() -> None:
    a, b, c = (row_digests([{"n": number}]) for number in range(3))
    files = {"summary.json": "00"}
    whole = content_digest({"part": [pack(a + b + c)]}, files)
    assert content_digest({"part": [pack(a), pack(b""), pack(b + c)]}, files) == whole
    assert content_digest({"part": [pack(b + a + c)]}, files) != whole
    assert content_digest({"part": [pack(a + b)], "all": [pack(c)]}, files) != whole
    assert content_digest({"part": [pack(a + b + c)]}, {"other.json": "00"}) != whole


def test_a_code_digest_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "digested_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('digesting must not import')\n")
    (package / "inner.py").write_text("A = 1\n")
    first = code_digest(["digested_package"])
    assert code_digest(["digested_package"]) == first
    (package / "notes.md").write_text("no source")
    assert code_digest(["digested_package"]) == first
    (package / "inner.py").write_text("A = 2\n")
    assert code_digest(["digested_package"]) != first
    assert code_digest(["no_such_package.at_all"]) == code_digest([])


def test_a_listing_ignores_place_and_hidden_files(tmp_path: Path) -> None:
    memo = HashMemo(open_files(tmp_path / "tree"), None)
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.PNG").write_bytes(b"picture")
        (tmp_path / name / "rows.txt").write_bytes(b"rows")
        (tmp_path / name / f".{name}").write_bytes(b"hidden")
    first = listing(External(tmp_path / "one"), memo)
    assert (first["files"], first["bytes"]) == (2, 11)
    assert listing(External(tmp_path / "two"), memo) == first
    assert listing(External(tmp_path / "one", only=lambda: [tmp_path / "one" / "deep" / "a.PNG"]), memo)["files"] == 1
    (tmp_path / "two" / "deep" / "a.PNG").rename(tmp_path / "two" / "deep" / "b.PNG")
    assert listing(External(tmp_path / "two"), memo) != first
    alone = listing(External(tmp_path / "one" / "rows.txt"), memo)
    assert alone == listing(External(tmp_path / "two" / "rows.txt"), memo)


def test_a_listing_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    memo = HashMemo(open_files(tmp_path / "tree"), None)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"picture")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "images").symlink_to(tmp_path / "pictures")
    (tmp_path / "pictures" / "back").symlink_to(tmp_path / "pictures")
    assert listing(External(tmp_path / "input"), memo)["files"] == 1
    with pytest.raises(DataError, match="cannot read the input"):
        listing(External(tmp_path / "none"), memo)


def test_hashes_are_remembered_over_processes_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, file = open_files(tmp_path / "tree"), tmp_path / "a"
    file.write_bytes(b"one")
    fresh = HashMemo(files, MEMO)
    right = fresh.local(file)
    fresh.save()
    assert files.size(MEMO) is None, "a file this young may still change within its time stamp's grain"
    monkeypatch.setattr("mbpo_core.store.memo._FRESH_S", -1.0)
    stat = file.stat()
    kept = HashMemo(files, MEMO)
    kept._remember(str(file), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns], "ab" * 32)
    kept.save()
    assert HashMemo(files, MEMO).local(file) == "ab" * 32
    os.utime(file, (5, 5))
    assert HashMemo(files, MEMO).local(file) == right
    for damaged in (b"{broken", files.read(MEMO)[:-1] + b"?"):
        files.write(MEMO, damaged)
        assert HashMemo(files, MEMO).local(file) == right


def test_two_processes_remember_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbpo_core.store.memo._FRESH_S", -1.0)
    monkeypatch.setattr("mbpo_core.store.memo._FOLD", 3)
    paths = [tmp_path / f"{number}" for number in range(20)]
    for path in paths:
        path.write_text(path.name)
    files = open_files(tmp_path / "tree")
    one, other = HashMemo(files, MEMO), HashMemo(files, MEMO)
    expected = [one.local(path) for path in paths[:12]] + [other.local(path) for path in paths[12:]]
    one.save()
    other.save()
    assert files.size(MEMO) == 16 + 56 * len(paths)
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: pytest.fail("read again"))
    again = HashMemo(files, MEMO)
    assert [again.local(path) for path in paths] == expected
    assert [other.local(path) for path in paths[::-1]] == expected[::-1]  # it read what the first had saved


def test_keys_that_end_in_zero_are_found() -> None:
    entries = {bytes([number]) * 15 + bytes([last]): bytes([number, last] * 20) for number in (1, 2) for last in (0, 7)}
    table = memo._Table.of(entries)
    assert {key: table.find(key) for key in entries} == entries
    assert table.find(b"\x01" * 14 + b"\x00\x00") is None
    assert table.joined(memo._Table.of({})).packed() == table.packed()


def test_old_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbpo_core.store.memo._FRESH_S", -1.0)
    files, file = open_files(tmp_path / "tree"), tmp_path / "a"
    file.write_bytes(b"one")
    memo = HashMemo(files, MEMO)
    digest = memo.local(file)
    memo.save()
    read = []
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: read.append(args))
    assert HashMemo(files, MEMO).local(file) == digest
    assert read == []


def test_stored_files_are_compared_with_what_was_written(files: Files) -> None:
    files.write("a/part.bin", b"rows")
    good = StoredFile(path="part.bin", size=4, sha256=hashlib.sha256(b"rows").hexdigest())
    assert ArtifactFolder(files, "a", HashMemo(files, None)).read(good) == b"rows"
    files.write("a/part.bin", b"rowz")
    with pytest.raises(DamagedArtifact, match=r"bytes have changed \(.*/a/part\.bin\)"):
        ArtifactFolder(files, "a", HashMemo(files, None)).check([good])
