"""Progress: lines with time left, a bar on a terminal, nothing when asked."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mbpo_core import progress
from mbpo_core.progress import BarProgress, LogProgress, NullProgress, duration, rate


def test_lines_tell_share_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    told = LogProgress(lines.append, every_s=10)
    told.start("mining", 40)
    for _ in range(4):
        now[0] += 5
        told.advance(10, loss=0.123456)
    told.log("done")
    assert lines == [
        "mining: 40 to do",
        "mining: 20/40 (50%), 10 s left, 2/s, loss 0.1235",
        "mining: 40/40 (100%) in 20 s, 2/s, loss 0.1235",
        "done",
    ]


def test_what_was_done_before_counts_for_the_share_and_not_for_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    told = LogProgress(lines.append, every_s=10)
    told.start("mining", 40, 20)
    for _ in range(2):
        now[0] += 10
        told.advance(10)
    assert lines == [
        "mining: 20 of 40 to do",
        "mining: 30/40 (75%), 10 s left, 1/s",
        "mining: 40/40 (100%) in 20 s, 1/s",
    ]


def test_a_bar_shows_count_and_figures() -> None:
    written = io.StringIO()
    bar = BarProgress(Console(file=written, force_terminal=True, width=120))
    bar.start("mining", 4)
    for _ in range(3):
        bar.advance(1, loss=0.5)
    bar.log("[not markup]")
    bar.start("scoring", 9, 6)
    bar.advance(2)
    bar.stop()
    bar.stop()
    text = written.getvalue()
    assert "3/4" in text
    assert " left " in text
    assert "/s" in text
    assert "loss 0.5" in text
    assert "[not markup]" in text
    assert "scoring" in text
    assert "8/9" in text


def test_null_progress_takes_everything() -> None:
    quiet = NullProgress()
    quiet.start("x", 1)
    quiet.advance(1, loss=1.0)
    quiet.log("x")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.6, "1 min 0 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("speed", "words"),
    [(0, ""), (1234.4, "1234/s"), (12.34, "12.3/s"), (1, "1/s"), (0.3, "3.3 s each"), (1 / 90, "1 min 30 s each")],
)
def test_rates(speed: float, words: str) -> None:
    assert rate(speed) == words
