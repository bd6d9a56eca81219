"""Run pointers: atomic, with history, and only under proper names."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mbpo_core.errors import DamagedArtifact, StoreError
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Run, Store
from mbpo_core.store.files import Files


def _ref(digest: str, stage: str = "negatives") -> ArtifactRef:
    return ArtifactRef(stage=stage, key="", digest=digest, content=f"content {digest}", uri="somewhere")


def test_pointers_move_and_remember(files: Files) -> None:
    run = Run(files, "demo")
    assert not run.exists()
    assert (run.pointers(), run.get("negatives")) == ({}, None)
    run.point("negatives", _ref("a"))
    run.point("training/1", _ref("t", "training"))
    run.point("negatives", _ref("b"))
    run.point("negatives", _ref("b"))
    run.save_config({"seed": 3})
    again = Run(files, "demo")
    assert again.exists()
    pointed = again.get("negatives")
    assert pointed is not None
    assert (pointed.digest, pointed.key) == ("b", "negatives")
    assert list(again.pointers()) == ["negatives", "training/1"], "in the order they were first set"
    document = again.document()
    assert [(entry.key, entry.ref.digest) for entry in document.history] == [
        ("negatives", "a"),
        ("training/1", "t"),
        ("negatives", "b"),
    ]
    assert document.config == {"seed": 3}
    assert document.pointers["negatives"].time.endswith("+00:00")


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", ".hidden", "x" * 65, "a b", "a\n"])
def test_odd_run_names_are_refused(files: Files, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be a run's name"):
        Run(files, name)


@pytest.mark.parametrize("key", ["../x", "", "training/", "training/../../x", "/etc", "a/b/c/d", "Training"])
def test_odd_keys_are_refused(files: Files, key: str) -> None:
    with pytest.raises(StoreError, match="cannot be a run's key"):
        Run(files, "demo").point(key, _ref("a"))


@pytest.mark.parametrize("key", ["negatives", "rollouts/0", "training/1", "training/sft"])
def test_usual_keys(files: Files, key: str) -> None:
    Run(files, "demo").point(key, _ref("a"))


def test_many_writers_lose_nothing(files: Files) -> None:
    def point(number: int) -> None:
        Run(files, "demo").point(f"training/{number}", _ref(str(number), "training"))

    threads = [threading.Thread(target=point, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Run(files, "demo").pointers()) == 12


def test_a_broken_run_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run("demo").point("negatives", _ref("a"))
    store.files.write("runs/demo.json", b"{")
    assert store.runs() == ["demo"]
    with pytest.raises(DamagedArtifact, match=r"runs/demo\.json.*Delete it"):
        store.run("demo").pointers()
