"""Run the benchmarks: `make bench`, or `python -m benchmarks [names] [--quick]`."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import argparse
import importlib
import inspect
import json
import time
from pathlib import Path

from benchmarks import limits
from benchmarks.harness import Record, commit, machine, show

NAMES = ("grpo", "pairs", "mining", "sampling", "projection", "pipeline", "memory")
REPEATS, QUICK_REPEATS = 5, 2
RESULTS = Path(__file__).with_name("results.json")
LIMITS = Path(__file__).with_name("limits.json")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which benchmarks (default: all of {', '.join(NAMES)})")
    parser.add_argument("--quick", action="store_true", help="a small grid, two repeats, results.json untouched")
    parser.add_argument("--repeats", type=int, help=f"steps behind each median (default {REPEATS})")
    chosen = parser.parse_args()
    if wrong := sorted(set(chosen.names) - set(NAMES)):
        parser.error(f"there is no benchmark {wrong[0]!r}; there are {', '.join(NAMES)}")
    print(f"float32 products run at {limits.gflops():.1f} GFLOP/s on one thread", flush=True)
    repeats = chosen.repeats or (QUICK_REPEATS if chosen.quick else REPEATS)
    for name in chosen.names or NAMES:
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            continue
        start = time.monotonic()
        records = _run(name, chosen.quick, repeats)
        show(records)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
        if not chosen.quick:
            _save(records)


def _run(name: str, quick: bool, repeats: int) -> list[Record]:
    run = importlib.import_module(f"benchmarks.{name}").run
    takes_repeats = "repeats" in inspect.signature(run).parameters
    records: list[Record] = run(quick, repeats) if takes_repeats else run(quick)
    return records


def _save(records: list[Record]) -> None:
    """Replace the records of the same benchmarks; the others stay from their own run."""
    names = {row["benchmark"] for row in records}
    before: list[Record] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    kept = [row for row in before if row["benchmark"] not in names]
    lines = ",\n ".join(json.dumps(row) for row in [*kept, *records])
    RESULTS.write_text(f"[\n {lines}\n]\n", encoding="utf-8")
    bound = {
        "gflops": round(limits.gflops(), 2),
        "gbytes": round(limits.gbytes(), 2),
        "machine": machine(),
        "commit": commit(),
    }
    LIMITS.write_text(json.dumps(bound, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
