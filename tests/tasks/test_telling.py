"""Progress pages: written rarely, first and last always, and never in the way of the work."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from mbpo_core.progress import LogProgress
from tasks import telling
from tasks.telling import PageProgress

PAGE = UUID("0f0b7a3c-54e1-4c8b-8a55-0b5d3a1c9d11")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the server was told: percent, and key or page, and text."""
    written: list[tuple[Any, ...]] = []

    def create(progress: float, *, key: str, description: str) -> UUID:
        written.append((progress, key, description))
        return PAGE

    def update(page: UUID, progress: float, *, description: str) -> None:
        written.append((progress, page, description))

    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", create)
    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", update)
    return written


def test_first_last_and_one_in_ten_seconds(now: list[float], written: list[tuple[Any, ...]]) -> None:
    lines: list[str] = []
    told = PageProgress(LogProgress(lines.append, every_s=1000), "training/1")
    told.start("training", 40)
    for _ in range(40):
        now[0] += 1
        told.advance(1, loss=0.5)
    told.log("done")
    assert written == [
        (0.0, "mbpo-training-1-progress", "training/1: training, 0/40"),
        (25.0, PAGE, "training/1: training, 10/40"),
        (50.0, PAGE, "training/1: training, 20/40"),
        (75.0, PAGE, "training/1: training, 30/40"),
        (100.0, PAGE, "training/1: training, 40/40"),
    ]
    assert lines[0] == "training: 40 to do"
    assert lines[-1] == "done"


def test_each_count_has_a_page_of_its_own(now: list[float], written: list[tuple[Any, ...]]) -> None:
    told = PageProgress(LogProgress(lambda line: None), "pairs")
    told.start("scoring", 0)
    told.start("choosing", 2)
    assert [(percent, key) for percent, key, _ in written] == [(0.0, "mbpo-pairs-progress")] * 2


def test_a_server_that_is_away_does_not_end_the_work(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **more: Any) -> UUID:
        raise ConnectionError("no server")

    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", away)
    lines: list[str] = []
    told = PageProgress(LogProgress(lines.append), "pairs")
    told.start("scoring", 2)
    told.advance(2)
    assert lines[0] == "scoring: 2 to do"
    assert lines[1].startswith("scoring: 2/2 (100%)")
