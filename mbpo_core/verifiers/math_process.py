"""One process of `math_worker`, started when it is first needed, and again after it was killed."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from mbpo_core.errors import VerifierError

CPU_LIMIT_S = 3
"""Processor time of one request; the kernel counts whole seconds, so that it is up to one more."""

WALL_LIMIT_S = 60.0
"""For a request, and for the start, on a machine that is busy with other things."""


def ask(text: str, reference: str | None = None) -> dict[str, Any] | None:
    """The worker's reply (`math_worker.answer`); None where the request was too much for it, and it was killed.

    Raises:
        VerifierError: the worker cannot be started.
    """
    with _LOCK:
        return _worker().ask({"text": text, "reference": reference, "cpu_s": CPU_LIMIT_S})


class _Worker:
    """A running worker and the pipes to it. Never forked: a new interpreter, which knows nothing of torch."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        script = Path(__file__).with_name("math_worker.py")
        # -P: the script's folder is no place to import from; its modules are called text and box.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        if self._read() is None:
            self.end()
            raise VerifierError(
                "the process that judges mathematics does not start",
                where=str(script),
                expected=f"it to be ready within {WALL_LIMIT_S:.0f} s",
                remedy="Run that file with this Python to see why.",
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        assert self._process.stdin is not None
        reply = None
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            reply = self._read()
        finally:
            if reply is None:  # also after an interrupt: the next request must not get the reply to this one
                self.end()
        return reply

    def end(self) -> None:
        """Kill it and wait, so that no zombie is left."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _read(self) -> dict[str, Any] | None:
        """The next line; None where the worker ended or the time is over."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(WALL_LIMIT_S):
                return None
        line = self._process.stdout.readline()
        reply: dict[str, Any] | None = json.loads(line) if line.endswith("\n") else None
        return reply


_LOCK = threading.Lock()
_running: list[_Worker] = []  # none or one


def _worker() -> _Worker:
    """The running one, or a new one; one that a forked process has from its parent is not its own."""
    if _running and (_running[0].owner != os.getpid() or not _running[0].alive()):
        stale = _running.pop()
        if stale.owner == os.getpid():
            stale.end()
    if not _running:
        _running.append(_Worker())
    return _running[0]


@atexit.register
def _end() -> None:
    if _running and _running[0].owner == os.getpid():
        _running.pop().end()
