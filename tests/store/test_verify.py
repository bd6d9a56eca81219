"""Every byte again: what is damaged, missing or led astray is named, and the memo of hashes is not believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mbpo_core.progress import LogProgress, NullProgress
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store import verify as module
from mbpo_core.store.verify import Verification, verify
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, STAGES


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", stages=STAGES)


@pytest.fixture
def ref(store: Store) -> ArtifactRef:
    made = make(store, DRAWING)
    store.run("r").point("drawing", made)
    return made


def look(store: Store) -> Verification:
    return verify(store, NullProgress(), runs=store.runs())


def problems(store: Store) -> list[tuple[str, str]]:
    return [(problem.kind, problem.what) for problem in look(store).problems]


def part(store: Store, ref: ArtifactRef, number: int = 0) -> Path:
    assert store.files.local
    file = store.reader(ref).manifest.parts[number].file
    return store.files.local / store.base(ref.stage, ref.digest) / file.path


def test_an_intact_store(store: Store, ref: ArtifactRef) -> None:
    answers = make(store, ANSWERS, {"samples": ref})
    found = look(store)
    manifests = [store.reader(made).manifest for made in (ref, answers)]
    sizes = [file.size for manifest in manifests for file in manifest.stored_files()]
    assert found.intact
    assert (found.artifacts, found.unfinished, found.files, found.bytes) == (2, 0, len(sizes), sum(sizes))


def test_a_changed_byte_that_the_memo_does_not_see(store: Store, ref: ArtifactRef, monkeypatch: object) -> None:
    """Same size and time stamp: nothing that only looks at those can notice."""
    path = part(store, ref)
    store.memo._remember(str(path), [], "")  # whatever the memo says, it is not asked
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (problem,) = look(store).problems
    assert (problem.kind, problem.what, problem.where) == ("damaged", "the file's bytes have changed", str(path))
    assert "made anew" in problem.remedy


def test_every_file_that_is_wrong_is_listed(store: Store, ref: ArtifactRef) -> None:
    part(store, ref, 0).unlink()
    shorter = part(store, ref, 1)
    shorter.write_bytes(shorter.read_bytes()[:-1])
    size = shorter.stat().st_size
    assert problems(store) == [
        ("missing", "the file is missing"),
        ("damaged", f"the file has {size} bytes instead of {size + 1}"),
    ]


def test_manifests_that_cannot_be_trusted(store: Store, ref: ArtifactRef) -> None:
    path = f"{store.base(ref.stage, ref.digest)}/manifest.json"
    manifest = json.loads(store.files.read(path))
    elsewhere = store.base("drawing", "f" * 64)
    store.files.write(f"{elsewhere}/manifest.json", json.dumps(manifest).encode())
    assert problems(store) == [("manifest", f"it is that of drawing {ref.digest[:12]}")]
    store.files.remove(elsewhere)
    manifest["identity"]["seed"] = 1
    store.files.write(path, json.dumps(manifest).encode())
    assert problems(store) == [("manifest", "what it says went in does not have this digest")]
    manifest["identity"]["seed"] = 0
    manifest["files"] = [{"path": "../../../etc/passwd", "size": 1, "sha256": "0"}]
    store.files.write(path, json.dumps(manifest).encode())
    (told,) = look(store).problems
    assert "cannot be a path inside the store" in told.what
    store.files.write(path, b"{")
    ((kind, what),) = problems(store)
    assert kind == "manifest"
    assert "not what was written" in what


def test_pointers_that_lead_nowhere_and_unreadable_runs(store: Store, ref: ArtifactRef) -> None:
    store.files.remove(store.base(ref.stage, ref.digest))
    store.files.write("runs/broken.json", b"[")
    store.files.write("promotions/r.json", b"{")
    told = {problem.where.rpartition("store/")[2]: problem for problem in look(store).problems}
    assert set(told) == {"runs/broken.json", "runs/r.json", "promotions/r.json"}
    assert told["runs/r.json"].what == f"drawing names drawing {ref.digest[:12]}, which is not in the store"
    assert {problem.kind for problem in told.values()} == {"run"}


def test_what_is_being_made_is_no_problem(store: Store, ref: ArtifactRef) -> None:
    store.files.remove(f"{store.base(ref.stage, ref.digest)}/manifest.json")
    found = verify(store, NullProgress())
    assert (found.intact, found.artifacts, found.unfinished) == (True, 0, 1)


def test_what_is_deleted_meanwhile_is_no_problem(
    store: Store, ref: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._check_file

    def after_gc(*arguments: object) -> object:
        store.files.remove(store.base(ref.stage, ref.digest))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_check_file", after_gc)
    assert verify(store, NullProgress()).intact


def test_progress_is_told_in_megabytes(store: Store, ref: ArtifactRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEGABYTE", 1000)
    monkeypatch.setattr(module, "_CHUNK", 500)
    lines: list[str] = []
    found = verify(store, LogProgress(lines.append, every_s=0))
    whole = found.bytes // 1000
    assert lines[0] == f"megabytes read: {whole} to do"
    assert len(lines) == whole + 1
    assert f"{whole}/{whole} (100%)" in lines[-1]


def test_some_artifacts_only(store: Store, ref: ArtifactRef) -> None:
    other = make(store, DRAWING, shade=99)
    part(store, other).unlink()
    assert verify(store, NullProgress(), addresses=[("drawing", ref.digest)]).intact
    assert not verify(store, NullProgress(), addresses=[("drawing", other.digest)]).intact
