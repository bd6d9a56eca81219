"""The sides of a comparison, each in a process of its own, taking their steps in turn.

A side is a function `side(point, pause)`. It loads its model, calls `pause.loaded()`, and then for each step does the
work and calls `pause(figures)` with the CPU seconds of its phases, until that returns False. The process is forked
from one that has imported everything and done nothing, so its first step is the first of a fresh process: that one
gives the peak memory and warms up; the later ones give the times.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from benchmarks.harness import peak_mib, reset_peak, resident_mib

Point = Mapping[str, Any]
Figures = dict[str, float]


class Pause:
    """What a side tells the runner, and where it waits for its turn; waiting takes no CPU time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._level = 0.0

    def loaded(self) -> None:
        """The model's weights are in memory and nothing else is: peaks are counted from here."""
        gc.collect()
        reset_peak()
        self._level = resident_mib()
        self._connection.send("loaded")
        self._connection.recv()

    def __call__(self, figures: Figures) -> bool:
        """Hand over the figures of a step and wait; False when no further step is wanted."""
        self._connection.send((figures, peak_mib() - self._level))
        return bool(self._connection.recv())


class Stopwatch:
    """CPU seconds of this process by the name of the phase."""

    def __init__(self) -> None:
        self._seconds: Figures = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside towards `name`."""
        start = time.process_time()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.process_time() - start

    def take(self) -> Figures:
        """What was counted since the last call."""
        taken, self._seconds = self._seconds, {}
        return taken


Side = Callable[[Point, Pause], None]


@dataclass(frozen=True)
class Measured:
    """One side of one grid point: every step's figures, warm-up left out, and the peak in MiB over the loaded model."""

    steps: list[Figures]
    peak_mib: float

    def median(self, *names: str) -> float:
        """The median over steps of the sum of the named figures."""
        return median(sum(step[name] for name in names) for step in self.steps)


def compare(point: Point, repeats: int, *sides: Side) -> list[Measured]:
    """Run all sides step by step in turn; which goes first alternates.

    Args:
        point: of the grid.
        repeats: steps a side that count.
        sides: importable functions.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.preload"])
    processes: list[_Process] = []
    try:
        for side in sides:
            processes.append(_Process(context, side, point))  # noqa: PERF401 - what was started must be ended
        for number in range(repeats + 1):
            for process in processes if number % 2 else processes[::-1]:
                process.step()
        return [process.finish() for process in processes]
    finally:
        for process in processes:
            process.end()


class _Process:
    """A side in a forked process."""

    def __init__(self, context: Any, side: Side, point: Point) -> None:
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_run, args=(other, side, dict(point)), daemon=True)
        self._process.start()
        other.close()
        self._results: list[tuple[Figures, float]] = []
        self._connection.recv()

    def step(self) -> None:
        self._connection.send(True)
        self._results.append(self._connection.recv())

    def finish(self) -> Measured:
        self._connection.send(False)
        self._process.join()
        return Measured([figures for figures, _ in self._results[1:]], self._results[0][1])

    def end(self) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()


def _run(connection: Connection, side: Side, point: Point) -> None:
    import torch

    torch.set_num_threads(1)
    side(point, Pause(connection))
