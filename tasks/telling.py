"""How far a stage is, told where people look: the terminal, and with a server the run's log and its progress page."""

from __future__ import annotations

import logging
import os
import sys
import time
from uuid import UUID

from mbpo_core.progress import LINE_EVERY_S, LogProgress, make_progress
from mbpo_core.stage import Progress
from tasks.markdown import page_key

_log = logging.getLogger(__name__)


class PageProgress:
    """Progress that also shows as a progress artifact, written at most every few seconds.

    Args:
        below: told everything too.
        key: run pointer of the stage.
        every_s: least time between two writes, seconds; the first and the last step are always written.
    """

    def __init__(self, below: Progress, key: str, *, every_s: float = LINE_EVERY_S) -> None:
        self._below, self._key, self._every_s = below, key, every_s
        self._page: UUID | None = None
        self._description, self._total, self._done, self._written = "", 0, 0, 0.0

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a count, on a page of its own."""
        self._below.start(description, total, done)
        self._description, self._total, self._done, self._page = description, total, done, None
        self._write()

    def advance(self, count: int = 1, **figures: float) -> None:
        """Count on."""
        self._below.advance(count, **figures)
        self._done += count
        if time.monotonic() - self._written >= self._every_s or self._done >= self._total:
            self._write()

    def log(self, message: str) -> None:
        """A line of its own; the page shows counts only."""
        self._below.log(message)

    def _write(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self._written = time.monotonic()
        percent = min(100.0, 100.0 * self._done / self._total) if self._total else 0.0
        text = f"{self._key}: {self._description}, {self._done}/{self._total}"
        try:
            if self._page is None:
                key = page_key(self._key, "progress")
                self._page = UUID(str(create_progress_artifact(percent, key=key, description=text)))
            else:
                update_progress_artifact(self._page, percent, description=text)
        except Exception as error:  # a page that cannot be written must not end hours of work
            _log.warning("the progress of %s could not be shown: %s", self._key, error)


def stage_progress(key: str) -> Progress:
    """A bar, or lines on standard error; with a server, lines in the run's log and a progress page.

    Args:
        key: run pointer of the stage.
    """
    if not os.environ.get("PREFECT_API_URL"):
        return make_progress()
    from prefect import get_run_logger

    log, quiet = get_run_logger(), os.environ.get("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")

    def write(line: str) -> None:
        log.info(line)
        if quiet:
            print(line, file=sys.stderr, flush=True)

    return PageProgress(LogProgress(write), key)
