"""Making the trials of a grid: one after the other here, or side by side in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from flows.paths import STORE_VARIABLE, prefect_home
from mbpo_core.ablation.grid import Trial
from mbpo_core.errors import MbpoError
from mbpo_core.progress import duration
from mbpo_core.stage import BASE
from mbpo_core.stages import TRAINING

Say = Callable[[str], None]

WORKER = "flows.trial_worker"


def in_turn(trials: Sequence[Trial]) -> list[Trial]:
    """As given, but those last whose training may go on from another one's: weights part of the way."""
    return sorted(trials, key=lambda trial: TRAINING.shorter(trial.config.training) is not None)


def make_here(trials: Sequence[Trial], say: Say) -> dict[str, str]:
    """One after the other, in this process; to be called within `prefect_runtime`.

    Returns:
        What went wrong, by the run's name; the others are made nevertheless.
    """
    pace, wrong = Pace(len(trials), say), dict[str, str]()
    for trial in trials:
        pace.begin(trial)
        if error := attempt(trial):
            wrong[trial.config.run] = error
        pace.end(trial, error)
    return wrong


def make_side_by_side(trials: Sequence[Trial], jobs: int, root: str, say: Say) -> dict[str, str]:
    """The same in several processes, which share the store: an artifact that two need is made by one of them.

    Args:
        trials: to make.
        jobs: processes.
        root: of the store.
        say: takes a line; theirs carry their number.
    """
    pace, wrong, waiting = Pace(len(trials), say), dict[str, str](), Waiting(trials)

    def work(number: int) -> None:
        child: Child | None = None
        try:
            while (trial := waiting.take(child.seed if child else None)) is not None:
                if child is None or not child.alive():
                    child = Child(number, jobs, root, say)
                pace.begin(trial)
                if error := child.attempt(trial):
                    wrong[trial.config.run] = error
                waiting.leave(trial)
                pace.end(trial, error)
        finally:
            if child is not None:
                child.end()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(1, jobs + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def attempt(trial: Trial) -> str:
    """Make a trial; says what went wrong, or nothing."""
    from flows.ablation import ablation

    try:
        ablation(trial.config, trial.cell == BASE)
    except MbpoError as error:
        return str(error)
    except Exception as error:  # a bug in one cell must not cost the others
        return f"{type(error).__name__}: {error}"
    return ""


class Waiting:
    """Trials that nobody has taken yet, handed out so that processes rarely need the same artifact at once."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._left, self._busy, self._lock = list(trials), Counter[int](), threading.Lock()

    def take(self, seed: int | None) -> Trial | None:
        """One of the seed that was worked on before, or else of one that nobody works on, or else any."""
        with self._lock:
            if not self._left:
                return None
            trial = min(self._left, key=lambda one: (one.seed != seed, self._busy[one.seed]))
            self._left.remove(trial)
            self._busy[trial.seed] += 1
            return trial

    def leave(self, trial: Trial) -> None:
        """It is made, or will not be."""
        with self._lock:
            self._busy[trial.seed] -= 1


class Pace:
    """Says which trial begins, which is done, and how long the others will take."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say, self._done = total, say, 0
        self._begun, self._lock = time.monotonic(), threading.Lock()

    def begin(self, trial: Trial) -> None:
        """A trial begins."""
        self._say(f"{trial.cell}, seed {trial.seed}: begins")

    def end(self, trial: Trial, error: str) -> None:
        """A trial has ended."""
        with self._lock:
            self._done += 1
            left = (time.monotonic() - self._begun) / self._done * (self._total - self._done)
            what = f"failed: {error}" if error else "done"
            tail = f", about {duration(left)} left" if self._done < self._total else ""
            self._say(f"{trial.cell}, seed {trial.seed}: {what} ({self._done} of {self._total}{tail})")


class Child:
    """A process that makes trials, one at a time (`python -m flows.trial_worker`).

    Args:
        number: of the process, from 1; it has a Prefect database of its own, as two servers cannot share one file.
        jobs: how many there are: they share the machine's cores.
        root: of the store.
        say: takes what the process logs.
    """

    def __init__(self, number: int, jobs: int, root: str, say: Say) -> None:
        environment = dict(os.environ) | {STORE_VARIABLE: root}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        if not environment.get("PREFECT_API_URL"):
            home = prefect_home(root) / f"job-{number}"
            home.mkdir(parents=True, exist_ok=True)
            environment["PREFECT_HOME"] = str(home)
        self.seed: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        self._log = threading.Thread(target=self._pass_on, args=(number, say), daemon=True)
        self._log.start()

    def alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def attempt(self, trial: Trial) -> str:
        """Have a trial made; says what went wrong, or nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.seed = trial.seed
        asked = {"cell": trial.cell, "seed": trial.seed, "config": trial.config.model_dump(mode="json")}
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            return f"its process ended with exit code {self._process.wait()}"
        return str(json.loads(answer)["error"])

    def end(self) -> None:
        """Let it go, and wait until it is gone."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone already
            self._process.stdin.close()
        self._process.wait()
        self._log.join()

    def _pass_on(self, number: int, say: Say) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            say(f"[{number}] {line.rstrip()}")
