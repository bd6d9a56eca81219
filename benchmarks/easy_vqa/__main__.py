"""Make the testbed: `python -m benchmarks.easy_vqa`. What is there already is left alone."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
from collections import Counter
from pathlib import Path

from benchmarks.easy_vqa.export import write_parquet
from benchmarks.easy_vqa.rows import data_folder, read_rows
from benchmarks.easy_vqa.selection import SETTINGS, pool_rows, probe_rows

DEFAULT_OUTPUT = Path(".bench/easy-vqa")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.easy_vqa", description=__doc__)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help=f"folder (default {DEFAULT_OUTPUT})")
    parser.add_argument("--data-only", action="store_true", help="write the Parquet files and train no model")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of BaseConfig")
    chosen = parser.parse_args(arguments)
    folder = data_folder()
    rows = read_rows(folder)
    for setting in SETTINGS:
        selected = [*pool_rows(rows, setting), *probe_rows(rows)]
        target = chosen.output / f"{setting}.parquet"
        print(f"{target}: {write_parquet(target, selected, folder)} rows", flush=True)
        counts = Counter((one.split, one.probe) for one in selected)
        print(*(f"  {split:8}{probe:22}{count:6}" for (split, probe), count in sorted(counts.items())), sep="\n")
    base = chosen.output / "base"
    if chosen.data_only or (base / "recipe.json").is_file():
        return
    from benchmarks.easy_vqa.base import BaseConfig, train_base

    config = BaseConfig.model_validate(dict(change.split("=", 1) for change in chosen.set))
    summary = train_base(base, rows, folder, config, _show)
    recipe = {"config": config.model_dump(), "summary": summary}
    (base / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))


def _show(stage: str, step: int, steps: int, loss: float) -> None:
    if step % 50 == 0 or step == steps:
        print(f"{stage} {step}/{steps} loss {loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
