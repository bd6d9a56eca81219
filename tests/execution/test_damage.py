"""Damage, full disks and forced reruns: noticed, named, and mended by running again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpo_core.errors import DamagedArtifact, StoreFull
from mbpo_core.execution import execute, plan
from mbpo_core.planning import CauseKind
from mbpo_core.progress import NullProgress
from mbpo_core.store import Store
from mbpo_core.store.gc import collect
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, STAGES, DrawingConfig


def _flip(store: Store, path: str, at: int) -> None:
    data = bytearray(store.files.read(path))
    data[at] ^= 0x10
    store.files.write(path, bytes(data))


def test_a_flipped_bit_is_noticed_by_reader_and_plan(store: Store, computed: list[int]) -> None:
    ref = make(store, DRAWING)
    base, manifest = store.base("drawing", ref.digest), store.reader(ref).manifest
    _flip(store, f"{base}/{manifest.parts[1].file.path}", 200)
    reader = store.reader(ref)
    assert len(reader.slice(0, 4)) == 4, "the other parts can be read"
    with pytest.raises(DamagedArtifact, match=r"part-00001\.parquet"):
        list(reader.rows())
    planned = plan(store, DRAWING, DrawingConfig(), {}, previous=ref)
    assert (planned.status, planned.parts_done) == ("resumes", 2)
    assert planned.causes[0].kind is CauseKind.DAMAGED
    assert "part-00001.parquet" in planned.causes[0].field
    computed.clear()
    assert execute(store, planned, NullProgress()) == ref
    assert computed == [4, 5, 6, 7], "only the damaged part is made anew"
    assert store.reader(ref).count() == len(list(store.reader(ref).rows())) == 10


def test_missing_and_short_files_are_named(store: Store) -> None:
    ref = make(store, DRAWING)
    path = f"{store.base('drawing', ref.digest)}/{store.reader(ref).manifest.parts[0].file.path}"
    data = store.files.read(path)
    store.files.write(path, data[:-20])
    with pytest.raises(DamagedArtifact, match=rf"the file has {len(data) - 20} bytes instead of {len(data)} "):
        store.reader(ref).slice(0, 1)
    store.files.remove(path)
    with pytest.raises(DamagedArtifact, match="the file is missing"):
        store.reader(ref).slice(0, 1)
    with pytest.raises(DamagedArtifact, match="the file is missing"):
        store.check("drawing", ref.digest)


def test_damaged_files_beside_the_tables(store: Store) -> None:
    ref = make(store, ANSWERS, {"samples": make(store, DRAWING)})
    attempt = store.reader(ref).manifest.attempt
    _flip(store, f"{store.base('answers', ref.digest)}/{attempt}/summary.json", 5)
    with pytest.raises(DamagedArtifact, match=r"summary\.json.*made anew"):
        store.reader(ref).json("summary.json")


def test_a_damaged_manifest_is_made_anew(store: Store) -> None:
    ref = make(store, DRAWING)
    store.files.write(f"{store.base('drawing', ref.digest)}/manifest.json", b'{"stage": "dra')
    with pytest.raises(DamagedArtifact, match="manifest is not what was written"):
        store.reader(ref)
    assert plan(store, DRAWING, DrawingConfig(), {}, previous=ref).causes[0].kind is CauseKind.DAMAGED
    assert make(store, DRAWING) == ref
    assert store.reader(ref).count() == 10


def test_a_forced_rerun_replaces_only_when_finished(store: Store, computed: list[int]) -> None:
    ref = make(store, DRAWING)
    before = store.reader(ref).manifest
    with pytest.raises(Exception, match="asked to fail"):
        make(store, DRAWING, force=True, fail_at=5)
    assert store.reader(ref).manifest == before
    planned = plan(store, DRAWING, DrawingConfig(), {}, force=True)
    assert (planned.status, [cause.kind for cause in planned.causes]) == ("runs", [CauseKind.FORCED])
    computed.clear()
    open_reader = store.reader(ref)
    assert execute(store, planned, NullProgress()) == ref
    assert computed == list(range(10)), "nothing is adopted"
    after = store.reader(ref).manifest
    assert after.attempt != before.attempt
    assert after.warnings == []
    assert len(list(open_reader.rows())) == 10, "a reader that was open before reads on"
    store.run("r").point("drawing", ref)
    assert [(g.reason, g.deleted) for g in collect(store, delete=True)] == [("superseded", True)]
    assert len(list(store.reader(ref).rows())) == 10


def test_a_forced_rerun_that_differs_says_so(store: Store) -> None:
    ref = make(store, DRAWING, noisy=True)
    again = make(store, DRAWING, noisy=True, force=True)
    assert (again.digest, again.content != ref.content) == (ref.digest, True)
    assert "drawing is not deterministic here" in store.reader(again).manifest.warnings[0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_nothing_is_half_written(
    local_store: Store, monkeypatch: pytest.MonkeyPatch, computed: list[int], code: int
) -> None:
    real, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 4:  # lease, part, sidecar, then the second part
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreFull, match=r"no space left.*mbpo gc"):
        make(local_store, DRAWING)
    monkeypatch.undo()
    artifact = next(Path(local_store.root).glob("artifacts/drawing/*/*"))
    left = sorted(path.name for path in artifact.rglob("*") if path.is_file())
    assert left == ["part-00000.json", "part-00000.parquet"]
    computed.clear()
    make(local_store, DRAWING)
    assert computed == [4, 5, 6, 7, 8, 9], "what was finished is kept"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; skipped where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting needs rights this user does not have")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    store = Store(small_disk / "store", stages=STAGES)
    with pytest.raises(StoreFull, match="no space left"):
        make(store, DRAWING, count=60, part_rows=1)
    assert not list(small_disk.rglob("manifest.json"))
    assert not list(small_disk.rglob(".part*"))
