"""What the machinery costs: time in Prefect and the store over time in the stages, and a run that is all cached.

A fresh process runs a shipped config as `mbpo run` does, on Prefect's embedded server and an empty store. Another one
runs it again: nothing is computed, and no model is loaded.

    python -m benchmarks.pipeline smoke
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import peak_mib
from benchmarks.memory import own_record

CONFIGS, QUICK_CONFIGS = ("smoke", "demo"), ("smoke",)

_STORE_CALLS = {
    "mbpo_core.store.writer:ArtifactWriter": ("finish_part", "add_folder", "add_text", "reader"),
    "mbpo_core.store.reader:ArtifactReader": ("slice", "where", "folder", "text"),
}


def run(quick: bool) -> list[dict[str, Any]]:
    """Two records a config: the first run, and the one that finds everything cached."""
    return [record for name in (QUICK_CONFIGS if quick else CONFIGS) for record in measure(name)]


def measure(config: str) -> list[dict[str, Any]]:
    """Run a shipped config twice, each time in a fresh process.

    Returns:
        Records "first" and "cached". Seconds are wall-clock after import: of the whole, of the stages' own work, of the
        store (inside the stages and around them) and the rest, which is Prefect. `overhead` is all but the stages' own
        work, over that work; `overhead_cpu` the same in CPU seconds of the process, the embedded server left out.
    """
    with tempfile.TemporaryDirectory(prefix="mbpo-pipeline-", ignore_cleanup_errors=True) as folder:
        first, again = (_child(config, Path(folder) / "store") for _ in range(2))
    if again["stages_run"] or again["policy_module"]:
        raise RuntimeError(f"the second run of {config} was not cached: {again}")
    records = []
    for kind, found in (("first", first), ("cached", again)):
        peak, cpu_s = found.pop("peak_mib"), found.pop("cpu_s")
        records.append(own_record("pipeline", {"config": config, "run": kind}, cpu_s, peak, **found))
    return records


def perform(config: str, store: str) -> dict[str, Any]:
    """Run a config in this process as the command line does, and say where the time went."""
    begun = time.perf_counter()
    from flows.paths import config_file, use_store
    from flows.running import run_pipeline
    from mbpo_core.config import load_config
    from mbpo_core.stage import StageSpec
    from mbpo_core.store import Store

    imported = time.perf_counter() - begun
    inside, outside, stages = Stopwatch(), Stopwatch(), Stopwatch()
    load = StageSpec.load

    def timed_load(spec: StageSpec) -> Callable[[Any], None]:
        return stages.timed(load(spec))

    StageSpec.load = timed_load  # type: ignore[method-assign]
    _watch_store(lambda: inside if stages.running else outside)
    opened, whole = Store(use_store(store)), Stopwatch()
    whole.timed(run_pipeline)(opened, load_config(config_file(config)))
    work, cpu_work = stages.wall - inside.wall, stages.cpu - inside.cpu
    return {
        "cpu_s": whole.cpu,
        "peak_mib": peak_mib(),
        "import_s": round(imported, 2),
        "seconds": round(whole.wall, 2),
        "stages_s": round(work, 2),
        "store_s": round(inside.wall + outside.wall, 2),
        "prefect_s": round(whole.wall - stages.wall - outside.wall, 2),
        "overhead": round((whole.wall - work) / work, 3) if work else None,
        "overhead_cpu": round((whole.cpu - cpu_work) / cpu_work, 3) if cpu_work else None,
        "stages_run": stages.calls,
        "policy_module": "mbpo_core.models.policy" in sys.modules,  # without it no model can have been loaded
        "torch": "torch" in sys.modules,
    }


class Stopwatch:
    """Wall-clock and CPU seconds of this process spent in some functions; calls inside calls count once."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.calls = self._depth = 0

    @property
    def running(self) -> bool:
        return self._depth > 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time taken."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._depth += 1
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.calls += 1
                    self.wall += time.perf_counter() - wall
                    self.cpu += time.process_time() - cpu

        return wrapped


def _watch_store(watch: Callable[[], Stopwatch]) -> None:
    """Take the time of the store's calls; those of a stage's other thread run beside its work and are left out."""
    import importlib
    import threading

    main = threading.main_thread()

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is not main:
                return function(*arguments, **named)
            return watch().timed(function)(*arguments, **named)

        return wrapped

    for place, names in _STORE_CALLS.items():
        module, _, owner = place.partition(":")
        found = getattr(importlib.import_module(module), owner)
        for name in names:
            setattr(found, name, timed(getattr(found, name)))


def _child(config: str, store: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.pipeline", config, "--store", str(store)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        environment.pop(name, None)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Command line; with --store, one run in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="smoke", help="a shipped run config")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    found = perform(chosen.config, chosen.store) if chosen.store else measure(chosen.config)
    print(json.dumps(found, indent=None if chosen.store else 1))


if __name__ == "__main__":
    main()
