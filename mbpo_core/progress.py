"""How far a stage is: a bar on a terminal, log lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_S = 10.0


class NullProgress:
    """Says nothing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Ignored."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """Ignored."""

    def log(self, message: str) -> None:
        """Ignored."""


class LogProgress:
    """Plain lines with the share done, the speed and the time left.

    Args:
        write: takes a line; standard error if None.
        every_s: least time between two lines, seconds; the first and the last step always get one.
    """

    def __init__(self, write: Callable[[str], None] | None = None, *, every_s: float = LINE_EVERY_S) -> None:
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self._every_s = every_s
        self._description, self._total, self._older, self._done = "", 0, 0, 0
        self._begun = self._said = time.monotonic()

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a count; what is done already is no part of the speed."""
        self._description, self._total, self._older, self._done = description, total, done, done
        self._begun = self._said = time.monotonic()
        self._write(f"{description}: {f'{total - done} of ' if done else ''}{total} to do")

    def advance(self, count: int = 1, **figures: float) -> None:
        """Count on; figures are shown with the line."""
        self._done += count
        now = time.monotonic()
        if now - self._said < self._every_s and self._done < self._total:
            return
        self._said = now
        speed = (self._done - self._older) / max(now - self._begun, 1e-9)
        left = max(0, self._total - self._done) / max(speed, 1e-9)
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        tail = f", {duration(left)} left" if left else f" in {duration(now - self._begun)}"
        shown = "".join(f", {text}" for text in (rate(speed), _figures(figures)) if text)
        self._write(f"{self._description}: {self._done}/{self._total}{share}{tail}{shown}")

    def log(self, message: str) -> None:
        """A line of its own."""
        self._write(message)


class BarProgress:
    """A bar with the rate and the time left, redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a bar, at what is done already; the one before stays as it is."""
        self.stop()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _RateColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._bar.add_task(description, total=total, completed=done, figures="")
        self._bar.start()

    def advance(self, count: int = 1, **figures: float) -> None:
        """Count on; figures are shown beside the bar until the next ones."""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.advance(task, count)
            if figures:
                self._bar.update(task, figures=_figures(figures))

    def log(self, message: str) -> None:
        """A line above the bar."""
        (self._bar.console if self._bar else self._console).print(message, markup=False, highlight=False)

    def stop(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def make_progress() -> BarProgress | LogProgress:
    """A bar if standard error is a terminal, log lines otherwise."""
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LogProgress()


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate(speed: float) -> str:
    """How fast it goes, in whatever is counted: 12.5/s, or 3.2 s each; empty if nothing is known yet.

    Args:
        speed: per second.
    """
    if speed <= 0:
        return ""
    if speed >= 1:
        return f"{speed:.0f}/s" if speed >= 100 else f"{speed:.3g}/s"
    each_s = 1 / speed
    return f"{each_s:.1f} s each" if each_s < 60 else f"{duration(each_s)} each"


class _RateColumn(ProgressColumn):
    """The rate, beside a bar."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.finished_speed or task.speed or 0.0))


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
