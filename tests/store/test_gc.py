"""Garbage collection: a dry run first, then exactly what no run needs."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mbpo_core.errors import StoreError
from mbpo_core.store import Store
from mbpo_core.store.gc import Garbage, collect
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, STAGES


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return Store(root, stages=STAGES)


def _told(garbage: list[Garbage]) -> list[tuple[str, str, bool]]:
    return [(entry.stage, entry.reason, entry.deleted) for entry in garbage]


def test_what_runs_need_stays(store: Store) -> None:
    drawn, unused = make(store, DRAWING), make(store, DRAWING, shade=99)
    store.run("r").point("answers", make(store, ANSWERS, {"samples": drawn}))
    before = store.files.walk("artifacts")
    assert collect(store, delete=True) == [], "what was made a moment ago may be pointed to in the next"

    found = collect(store, unused_age_s=0)
    assert _told(found) == [("drawing", "unused", False)]
    assert found[0].digest == unused.digest
    assert found[0].bytes == sum(store.files.walk(found[0].path).values()) > 1000
    assert store.files.walk("artifacts") == before, "a dry run deletes nothing"

    assert _told(collect(store, delete=True, unused_age_s=0)) == [("drawing", "unused", True)]
    assert not store.is_committed("drawing", unused.digest)
    assert store.files.names(f"artifacts/drawing/{unused.digest[:2]}") == []
    assert len(list(store.reader(drawn).rows())) == 10, "the input of what a run points to"
    assert collect(store, unused_age_s=0) == []


def test_a_moved_pointer_lets_the_old_artifact_go(store: Store) -> None:
    first, second = make(store, DRAWING), make(store, DRAWING, shade=99)
    store.run("r").point("drawing", first)
    store.run("other").point("drawing", first)
    store.run("r").point("drawing", second)
    assert collect(store, unused_age_s=0) == [], "another run still needs it"
    store.run("other").point("drawing", second)
    assert [entry.digest for entry in collect(store, unused_age_s=0)] == [first.digest]


def test_unfinished_attempts_stay_a_while(store: Store) -> None:
    with pytest.raises(StoreError):
        make(store, DRAWING, fail_at=5)
    assert collect(store, delete=True, unused_age_s=0) == []
    assert _told(collect(store, delete=True, unfinished_age_s=0)) == [("drawing", "unfinished", True)]
    assert store.artifacts() == []


def test_a_live_worker_is_never_touched(store: Store) -> None:
    ref = make(store, DRAWING)
    with store.lease("drawing", ref.digest):
        assert collect(store, delete=True, unused_age_s=0, unfinished_age_s=0) == []
    assert _told(collect(store, delete=True, unused_age_s=0)) == [("drawing", "unused", True)]


def test_scratch_of_finished_artifacts_goes(store: Store) -> None:
    ref = make(store, DRAWING)
    store.run("r").point("drawing", ref)
    for digest in (ref.digest, "0" * 64):
        folder = store.scratch("drawing", digest, "codecode")
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(b"12345")
    with pytest.raises(StoreError):
        make(store, DRAWING, shade=5, fail_at=5)
    assert [entry.bytes for entry in collect(store)] == [5, 5]
    assert {entry.deleted for entry in collect(store, delete=True)} == {True}
    assert collect(store) == []


def test_copies_of_checkpoints_that_no_run_needs_go(store: Store) -> None:
    """Copies are made where the store is not a local folder; their name begins with the artifact's digest."""
    needed, unused = make(store, DRAWING), make(store, DRAWING, shade=99)
    store.run("r").point("drawing", needed)
    folders = [store.files.scratch(f"copies/{ref.digest}-attempt") for ref in (needed, unused)]
    for folder in folders:
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / "weights").write_bytes(b"1234")
    copies = [entry for entry in collect(store, unused_age_s=0) if entry.path.startswith("copies/")]
    assert [(entry.digest, entry.bytes, entry.deleted) for entry in copies] == [(unused.digest, 4, False)]
    assert not any(entry.path.startswith("copies/") for entry in collect(store)), "a run may be reading it"
    collect(store, delete=True, unused_age_s=0)
    assert [folder.exists() for folder in folders] == [True, False]


def test_caches_that_nobody_adds_to_go(store: Store) -> None:
    cache = store.files.scratch("cache/reference-01234567")
    (cache / "conditions").mkdir(parents=True)
    (cache / "conditions" / "rows.parquet").write_bytes(b"1234")
    assert collect(store, delete=True) == [], "it was written to lately"
    (found,) = collect(store, delete=True, unfinished_age_s=0)
    assert (found.path, found.reason, found.bytes, found.deleted) == ("cache/reference-01234567", "unused", 4, True)
    assert not cache.exists()
