"""What worker processes tell the one that watches over them, as plain files in their folder.

`progress-R.jsonl` calls of Progress by rank R; `error-R.json` why it failed; `done-R` it ended well; `rank-R.log` its
output; `launcher.log` the launcher's. On several machines also `pulse-R`: it lives, and `heartbeat`, the other way
round: the supervisor does.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

from mbpo_core import errors
from mbpo_core.stage import Progress

HEARTBEAT_S = 1.0
"""Between two beats, seconds."""

SILENCE_S = 10.0
"""A worker on another machine ends itself after this long without a beat, seconds."""

STALLED_S = 30.0
"""A worker on another machine is taken for dead after this long without a pulse, seconds; loading may stall it."""

_LOG_LINES = 50


class ProgressFile:
    """A Progress that writes calls as JSON lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Pass on."""
        self._write("start", description, total, done)

    def advance(self, count: int = 1, **figures: float) -> None:
        """Pass on."""
        self._write("advance", count, **figures)

    def log(self, message: str) -> None:
        """Pass on."""
        self._write("log", message)

    def _write(self, call: str, *arguments: object, **figures: float) -> None:
        self._file.write(json.dumps([call, arguments, figures]) + "\n")


class Relay:
    """Passes on what all ranks tell: counts of all, everything else of rank 0.

    Args:
        ranks: how many count; 1 where all of them do the same work together.
    """

    def __init__(self, folder: Path, ranks: int, progress: Progress) -> None:
        self._files = [folder / f"progress-{rank}.jsonl" for rank in range(ranks)]
        self._read = [0] * ranks
        self._progress = progress
        self._begun = False

    def catch_up(self) -> None:
        """Pass on whatever is new."""
        for rank in range(len(self._files)):
            if rank == 0 or self._begun:  # the count begins when rank 0 says so
                self._catch_up(rank)

    def _catch_up(self, rank: int) -> None:
        if not self._files[rank].exists():
            return
        with self._files[rank].open(encoding="utf-8") as file:
            file.seek(self._read[rank])
            while (line := file.readline()).endswith("\n"):
                self._read[rank] = file.tell()
                call, arguments, figures = json.loads(line)
                if rank == 0:
                    self._begun = self._begun or call == "start"
                    getattr(self._progress, call)(*arguments, **figures)
                elif call == "advance":
                    self._progress.advance(*arguments)


class Heart:
    """Beats in a folder until stopped; then the file is gone, which ends who watches it at once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "heartbeat"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="mbpo-heartbeat", daemon=True)

    def start(self) -> None:
        """Beat at once, and every second from now on."""
        self._file.write_text("0", encoding="utf-8")
        self._thread.start()

    def stop(self) -> None:
        """Stop, and say so."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._file.unlink(missing_ok=True)

    def _beat(self) -> None:
        number = 0
        while not self._stop.wait(HEARTBEAT_S):
            number += 1
            with contextlib.suppress(OSError):  # the next beat may succeed
                self._file.write_text(str(number), encoding="utf-8")


def follow_heartbeat(folder: Path, rank: int) -> None:
    """Show a pulse, and end this process when the heartbeat is gone or has not changed for SILENCE_S."""
    threading.Thread(target=_listen, args=(folder, rank), name="mbpo-heartbeat", daemon=True).start()


def _listen(folder: Path, rank: int) -> None:
    file, pulse = folder / "heartbeat", folder / f"pulse-{rank}"
    last, heard, number = "", time.monotonic(), 0
    while True:
        try:
            beat = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            os._exit(1)
        except OSError:  # a network file system that stumbles
            beat = last
        if beat != last:
            last, heard = beat, time.monotonic()
        elif time.monotonic() - heard > SILENCE_S:
            os._exit(1)
        number += 1
        with contextlib.suppress(OSError):
            pulse.write_text(str(number), encoding="utf-8")
        time.sleep(HEARTBEAT_S / 2)


class Pulses:
    """Which workers on other machines died without a word; their launcher may wait for the rest for ever."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self._folder = folder
        self._last = [""] * ranks
        self._heard = [time.monotonic()] * ranks

    def stalled(self) -> list[int]:
        """Ranks that once had a pulse, are not done, and have shown none for STALLED_S."""
        return [rank for rank in range(len(self._last)) if self._stalled(rank)]

    def _stalled(self, rank: int) -> bool:
        try:
            pulse = (self._folder / f"pulse-{rank}").read_text(encoding="utf-8")
        except OSError:
            return False
        if pulse != self._last[rank]:
            self._last[rank], self._heard[rank] = pulse, time.monotonic()
        silent = time.monotonic() - self._heard[rank] > STALLED_S
        return silent and not (self._folder / f"done-{rank}").exists()


def tell_error(folder: Path, rank: int, error: BaseException) -> None:
    """Write down why a worker fails."""
    fields = {name: getattr(error, name, "") for name in ("what", "where", "expected", "remedy")}
    if not isinstance(error, errors.MbpoError):
        fields["what"] = repr(error)
    told = {"type": type(error).__name__, "time": time.time(), **fields}
    aside = folder / f".error-{rank}"
    aside.write_text(json.dumps(told), encoding="utf-8")
    aside.rename(folder / f"error-{rank}.json")


def told_error(folder: Path) -> errors.MbpoError | None:
    """The first error of ours that a worker met; the others' are mostly about losing touch with it."""
    told = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("error-*.json")]
    for error in sorted(told, key=lambda error: float(error["time"])):
        kind = getattr(errors, error["type"], None)
        if isinstance(kind, type) and issubclass(kind, errors.MbpoError):
            return kind(error["what"], where=error["where"], expected=error["expected"], remedy=error["remedy"])
    return None


def failure(folder: Path, what: str) -> errors.WorkerFailed:
    """An error with the last lines of rank 0's log, or of the launcher's where there are none."""
    log = folder / "rank-0.log"
    if not log.exists() or not log.stat().st_size:
        log = folder / "launcher.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return errors.WorkerFailed(
        what,
        where=str(log),
        remedy="The log ends with:\n" + "\n".join(tail) if tail else "The log is empty.",
    )
