"""A night's run over a folder that somebody else fills: what is new is noticed, and only its consequences run.

The samples stage is real and reads Parquet files; the stages after it are fakes whose content follows from what they
read. Everything between them (identities, store, plans) is real.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import PipelineConfig
from mbpo_core.stages import SAMPLES, STAGES
from mbpo_core.store import Store
from tasks.run import Run, pointer_keys
from tests.flows import fakes
from tests.samples.helpers import encoded, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rows in one file."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    add(folder / "monday.parquet", [row(1), row(2)])
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    fakes.install(monkeypatch)
    monkeypatch.setitem(STAGES, "samples", SAMPLES)
    return Store(tmp_path / "runs")


def row(number: int, **columns: Any) -> dict[str, Any]:
    image = {"bytes": encoded(picture((number, 30, 30))), "path": None}
    return {"id": f"q{number}", "image": image, "question": "Is it red?", "answer": "yes"} | columns


def add(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, compression="none")


def config(folder: Path) -> PipelineConfig:
    samples = {"source": "parquet", "path": str(folder), "id_column": "id", "max_dropped_share": 0.5}
    return PipelineConfig.model_validate({"run": "nightly", "method": "mbpo", "rounds": 2, "samples": samples})


def night(store: Store, folder: Path) -> dict[str, list[str]]:
    """What a night's run does: the keys that were computed, with the causes."""
    from flows.pipeline import follow_method

    tonight = Run(config(folder), Store(store.root))  # a new process remembers nothing
    follow_method(tonight)
    return {
        plan.key: [f"{cause.kind} {cause.field}" for cause in plan.causes]
        for plan in tonight.plans
        if plan.status != "cached"
    }


def questions(store: Store) -> list[str]:
    return [row["sample_id"] for row in store.reader(store.run("nightly").pointers()["samples"]).rows()]


def test_an_unchanged_folder_computes_nothing(store: Store, folder: Path) -> None:
    assert list(night(store, folder)) == list(pointer_keys(config(folder)))
    before = store.run("nightly").document()
    assert night(store, folder) == {}
    assert store.run("nightly").document() == before


def test_new_rows_run_what_follows_from_them(store: Store, folder: Path) -> None:
    night(store, folder)
    add(folder / "tuesday.parquet", [row(3)])
    done = night(store, folder)
    assert list(done) == list(pointer_keys(config(folder)))
    assert set(done["samples"]) == {
        "INPUT external.path.files",
        "INPUT external.path.bytes",
        "INPUT external.path.sha256",
    }
    assert done["negatives"] == ["INPUT inputs.samples"]
    assert questions(store) == ["q1", "q2", "q3"]
    assert night(store, folder) == {}


def test_a_touched_file_with_the_same_bytes_computes_nothing(store: Store, folder: Path) -> None:
    night(store, folder)
    file = folder / "monday.parquet"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)
    os.utime(file, (1, 1))
    assert night(store, folder) == {}


def test_changed_bytes_of_the_same_size_and_time_are_noticed(store: Store, folder: Path) -> None:
    night(store, folder)
    file = folder / "monday.parquet"
    stat = file.stat()
    file.write_bytes(file.read_bytes().replace(b"Is it red?", b"Is it tan?"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "negatives" in night(store, folder)
    rows = store.reader(store.run("nightly").pointers()["samples"]).rows(columns=["question"])
    assert [row["question"] for row in rows] == ["Is it tan?"] * 2


@pytest.mark.parametrize("change", ["a note beside the data", "a renamed file"])
def test_input_that_gives_the_same_samples_stops_at_them(store: Store, folder: Path, change: str) -> None:
    """Early cut-off: the samples are imported again, come out the same, and nothing after them runs."""
    night(store, folder)
    if change == "a note beside the data":
        (folder / "README.txt").write_text("do not touch", encoding="utf-8")
    else:
        (folder / "monday.parquet").rename(folder / "tuesday.parquet")
    assert list(night(store, folder)) == ["samples"]
    assert night(store, folder) == {}


def test_new_rows_that_are_all_dropped_still_run_what_follows(store: Store, folder: Path) -> None:
    """Dropped rows are content too: the report counts them. So stages that only read kept rows run for nothing."""
    night(store, folder)
    before = questions(store)
    add(folder / "tuesday.parquet", [row(3, answer="")])
    done = night(store, folder)
    assert questions(store) == before
    assert done["negatives"] == ["INPUT inputs.samples"]
    assert "report" in done


def test_rows_taken_away_go_back_to_what_was_there(store: Store, folder: Path) -> None:
    """The old artifacts are still in the store: a mistaken delivery that is withdrawn costs nothing."""
    night(store, folder)
    first = store.run("nightly").pointers()
    add(folder / "mistake.parquet", [row(3)])
    night(store, folder)
    (folder / "mistake.parquet").unlink()
    assert night(store, folder) == {}
    assert store.run("nightly").pointers() == first
