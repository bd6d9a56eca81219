"""A clean environment for commands run as a user would, each in a folder of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def clean(folder: Path, **changes: str) -> dict[str, str]:
    """This environment without anything that other tests told Prefect or the store."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MBPO_"))}
    scripts = str(Path(sys.executable).parent)
    silent = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "OMP_NUM_THREADS": "1"}
    path = f"{scripts}{os.pathsep}{kept.get('PATH', '')}"
    return kept | silent | {"PATH": path, "HOME": str(folder)} | changes


def children_cpu_s() -> float:
    """CPU seconds of the commands that ended so far; unlike wall-clock, the same on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(words: list[str], folder: Path, environment: dict[str, str], cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        AssertionError: it failed; carries its output.
    """
    done = subprocess.run(
        words, cwd=cwd or folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
