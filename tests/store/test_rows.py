"""A row's way through a run: every table that has it, dropped rows with their reason, and no pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mbpo_core.store import Store
from mbpo_core.store import table_reader as module
from mbpo_core.store.rows import follow_row
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, FITTING, STAGES


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of drawings (every fourth dropped), answers in two tables, and steps that have no samples."""
    store = Store(tmp_path / "store", stages=STAGES)
    drawn = make(store, DRAWING, faint_every=4)
    answers = make(store, ANSWERS, {"samples": drawn})
    for key, ref in (("drawing", drawn), ("answers", answers), ("promoted", answers)):
        store.run("r").point(key, ref)
    return store


def met(store: Store, sample_id: str) -> list[tuple[str, str]]:
    return [(seen.key, seen.table) for seen in follow_row(store, "r", sample_id).sightings]


def test_every_table_that_has_it(store: Store) -> None:
    followed = follow_row(store, "r", "s002")
    assert met(store, "s002") == [("drawing", "part"), ("answers", "part"), ("answers", "all")]
    assert followed.sightings[0].row == {
        "split": "online", "kind": "numeric", "question": "Which shade?", "answer": f"{10 / 3}", "source": "fake",
    }  # fmt: skip
    assert followed.sightings[1].row["verdict"] == "unparsed"
    assert followed.absent == []


def test_a_dropped_row_is_met_with_its_reason(store: Store) -> None:
    followed = follow_row(store, "r", "s005")
    assert met(store, "s005") == [("drawing", "dropped")]
    assert followed.sightings[0].row == {"reason": "faint", "detail": "fake"}
    assert followed.absent == ["answers"]


def test_an_unknown_row_is_told_where_it_was_looked_for(store: Store) -> None:
    followed = follow_row(store, "r", "nobody")
    assert followed.sightings == []
    assert followed.looked == {"drawing": 10, "answers": 13}


def test_no_picture_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    real = module.TableReader._group

    def watched(self: Any, part: int, group: int, columns: Any) -> Any:
        read.append(columns)
        return real(self, part, group, columns)

    monkeypatch.setattr(module.TableReader, "_group", watched)
    assert met(store, "s002")
    assert read
    assert all(columns is not None and "images" not in columns for columns in read)


def test_a_broken_artifact_hides_only_itself(store: Store) -> None:
    ref = store.run("r").pointers()["drawing"]
    store.files.write(f"{store.base(ref.stage, ref.digest)}/manifest.json", b"{")
    followed = follow_row(store, "r", "s002")
    assert [seen.key for seen in followed.sightings] == ["answers", "answers"]
    assert list(followed.unread) == ["drawing"]


def test_completions_and_conversations_are_told_shortly() -> None:
    from mbpo_core.store.rows import _told

    says = [{"role": "assistant", "content": [{"type": "text", "text": "red"}]}]
    completion = {"text": "red", "verdict": "correct", "reward": 1.2, "token_ids": [1], "logprobs": [-0.1]}
    told = _told({"chosen": says, "rejected": [], "completions": [completion]})
    assert told == {
        "chosen": "red",
        "rejected": "",
        "completions": [{"text": "red", "verdict": "correct", "reward": 1.2}],
    }


def test_stages_without_samples_are_passed_by(store: Store) -> None:
    from mbpo_core.config import PolicyConfig
    from mbpo_core.stage import PolicyRef

    base = PolicyRef(folder=store.root, digest="base")
    answers = store.run("r").pointers()["answers"]
    fitted = make(
        store, FITTING, {"answers/0": answers}, policies={"policy": base}, policy_config=PolicyConfig(), rounds=1
    )
    store.run("r").point("training/0", fitted)
    assert met(store, "s002")[-1] == ("answers", "all")
    assert follow_row(store, "r", "s002").unread == {}
