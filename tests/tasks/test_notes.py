"""Figures and links of the notes, and that a note never fails the work it is about."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.notes import as_link, best_effort, reward_rows


def _group(kind: str, *completions: tuple[float, str]) -> dict[str, Any]:
    made = [{"reward": reward, "verdict": verdict} for reward, verdict in completions]
    return {"question_kind": kind, "completions": made}


def test_rewards_are_counted_by_question_kind() -> None:
    groups = [
        _group("yes_no", (1.0, "correct"), (0.0, "wrong")),
        _group("numeric", (0.2, "wrong"), (0.0, "unparsed")),
        _group("yes_no", (1.0, "correct"), (1.0, "correct")),
    ]
    reader: Any = SimpleNamespace(rows=lambda columns: [{name: group[name] for name in columns} for group in groups])
    assert reward_rows(reader) == [
        {
            "question kind": "numeric", "groups": 1, "completions": 2, "mean reward": 0.1,
            "correct": 0, "unparsed": 1, "wrong": 1,
        },
        {
            "question kind": "yes_no", "groups": 2, "completions": 4, "mean reward": 0.75,
            "correct": 3, "unparsed": 0, "wrong": 1,
        },
    ]  # fmt: skip


def test_a_place_becomes_a_link() -> None:
    assert as_link("s3://bucket/runs/x/manifest.json") == "s3://bucket/runs/x/manifest.json"
    assert as_link("/data/my runs/manifest.json") == "file:///data/my%20runs/manifest.json"


def test_a_note_that_cannot_be_written_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    @best_effort
    def note_nothing() -> None:
        raise ConnectionError("the server is away")

    with caplog.at_level(logging.WARNING):
        note_nothing()
    assert "note_nothing could not be written: the server is away" in caplog.text
