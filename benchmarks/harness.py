"""What every benchmark needs: the machine, the commit, memory of this process, the record and its table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ROOT / ".bench"

Record = dict[str, Any]


@cache
def machine() -> str:
    """Processor, cores and torch build; nothing that names the host."""
    model = platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    torch = importlib.metadata.version("torch")
    return f"{model}, {os.cpu_count()} cores, {threads} thread(s), torch {torch}, Python {platform.python_version()}"


@cache
def commit() -> str:
    """The checked-out commit, with a + where files differ from it."""
    head = _git("rev-parse", "--short=10", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def peak_mib() -> float:
    """Largest resident size of this process so far, or since `reset_peak`."""
    if (value := _status("VmHWM")) is not None:
        return value
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float:
    """Resident size of this process now; its peak where the system does not tell."""
    value = _status("VmRSS")
    return peak_mib() if value is None else value


def reset_peak() -> None:
    """Let `peak_mib` start again at the present size, where the system can do that (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def record(
    benchmark: str,
    grid: Mapping[str, Any],
    ours_cpu_s: float,
    peer: str,
    peer_cpu_s: float,
    *,
    package: str,
    repeats: int,
    peaks: tuple[float, float] | None = None,
    **extra: Any,
) -> Record:
    """One line of results.json.

    Args:
        benchmark: and `grid`: what was measured where.
        ours_cpu_s: median CPU seconds of our side.
        peer: name of the other side.
        peer_cpu_s: its median CPU seconds.
        package: whose version is recorded.
        repeats: steps behind each median.
        peaks: MiB over the loaded model, ours and the peer's.
        extra: further keys.
    """
    return {
        "benchmark": benchmark,
        "grid": dict(grid),
        "ours_cpu_s": round(ours_cpu_s, 5),
        "peer": peer,
        "peer_version": importlib.metadata.version(package),
        "peer_cpu_s": round(peer_cpu_s, 5),
        "ratio": round(peer_cpu_s / ours_cpu_s, 3),
        "ours_peak_mib": round(peaks[0], 1) if peaks else None,
        "peer_peak_mib": round(peaks[1], 1) if peaks else None,
        "repeats": repeats,
        "machine": machine(),
        "commit": commit(),
        **extra,
    }


def show(records: Sequence[Record]) -> None:
    """Print the records as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{machine()}; commit {commit()}", title_justify="left")
    for name in ("benchmark", "grid", "peer"):
        table.add_column(name, overflow="fold")
    for name in ("ours CPU s", "peer CPU s", "ratio", "ours MiB", "peer MiB", "ideal s"):
        table.add_column(name, justify="right")
    for row in records:
        grid = " ".join(f"{key}={value}" for key, value in row["grid"].items())
        numbers = [row[key] for key in ("ours_cpu_s", "peer_cpu_s", "ratio", "ours_peak_mib", "peer_peak_mib")]
        cells = ["" if value is None else f"{value:g}" for value in (*numbers, row.get("ideal_s"))]
        table.add_row(row["benchmark"], grid, row["peer"] or "", *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _status(name: str) -> float | None:
    """A size that Linux tells about this process, MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) / 1024 if found else None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
