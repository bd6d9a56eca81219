"""Does the machinery work? Every stage on a handful of rows, its Parquet opened, nothing computed twice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow

from flows.forms import BaseName
from flows.hooks import SERVICE
from flows.paths import STORE_VARIABLE, named_config
from flows.pipeline import follow_method, pipeline
from flows.training import training
from mbpo_core.config import PipelineConfig, load_config
from mbpo_core.errors import StoreError
from mbpo_core.records import Image
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import stale
from tasks.run import Run, expect

# The four kinds the method is about, by run pointer.
KINDS = ("negatives", "pairs", "rollouts/0", "training/0")


@flow(name="smoke", **SERVICE)
def smoke(config: BaseName = "smoke") -> list[str]:
    """Run every stage on a handful of rows in a temporary store and check what they wrote.

    Args:
        config: Name of a shipped run config, or of a file in the worker's folder MBPO_CONFIGS.

    Returns:
        What was checked, a line each.

    Raises:
        StoreError: a check failed.
    """
    settings = load_config(named_config(config))
    with _temporary_store() as root:
        store = Store(root)
        pipeline(config=settings)
        return [*check_tables(store, settings.run), check_cached(store, settings), check_rerun(store, settings)]


def check_tables(store: Store, run: str) -> list[str]:
    """Open the four Parquet kinds as a stranger would, with `datasets` and pandas."""
    pointers = store.run(run).pointers()
    return [_check_table(store, key, pointers[key]) for key in KINDS]


def check_cached(store: Store, config: PipelineConfig) -> str:
    """Running again must compute nothing."""
    again = Run(config, store, perform=expect)
    follow_method(again)
    _require(all(plan.status == "cached" for plan in again.plans), "a second run would compute something")
    return f"second run: all {len(again.plans)} stages cached"


def check_rerun(store: Store, config: PipelineConfig) -> str:
    """Rerunning one stage must move its pointer only, and make stale what was built on it."""
    before = store.run(config.run).pointers()
    rate = config.training.learning_rate / 2
    training(run=config.run, changes=[f"training.learning_rate={rate!r}"])
    after = store.run(config.run).pointers()
    moved = [key for key in after if after[key] != before[key]]
    _require(moved == ["training/0"], f"rerunning training moved {moved}")
    left = [entry.key for entry in stale(store, config.run)]
    _require(left == ["evaluation", "report"], f"rerunning training made {left} stale")
    return "one stage again: moved training/0 only; stale now: evaluation, report"


def _check_table(store: Store, key: str, ref: ArtifactRef) -> str:
    import datasets
    import pandas

    datasets.disable_progress_bars()
    reader = store.reader(ref)
    record = store.stages[ref.stage].record
    files = [Path(ref.uri) / part.file.path for part in reader.manifest.parts if part.table == "part"]
    _require(record is not None and bool(files), f"{key} has no table")
    cache = tempfile.mkdtemp(dir=store.root)
    table = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train", cache_dir=cache)
    rows = sum(len(pandas.read_parquet(file)) for file in files)
    columns = list(record.model_fields) if record else []
    _require(len(table) == rows == reader.count() > 0, f"{key}: {len(table)}, {rows} and {reader.count()} rows")
    _require(table.column_names == columns, f"{key} has columns {table.column_names}, not {columns}")
    pictures = [picture for name in _image_columns(record) for picture in table[0][name]]
    _require(all(picture.size[0] > 0 for picture in pictures), f"{key}: pictures do not decode")
    return f"{key}: {rows} rows, {len(columns)} columns, {len(pictures)} pictures of the first row decoded"


def _image_columns(record: Any) -> list[str]:
    return [name for name, field in record.model_fields.items() if field.annotation == list[Image]]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise StoreError(f"smoke check failed: {what}", remedy="Run make smoke with --debug, then the stage's tests.")


@contextmanager
def _temporary_store() -> Iterator[str]:
    """A store of its own, so that the first run computes everything; the environment names it meanwhile."""
    before = os.environ.get(STORE_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="mbpo-smoke-", ignore_cleanup_errors=True) as root:
        os.environ[STORE_VARIABLE] = root
        try:
            yield root
        finally:
            os.environ.pop(STORE_VARIABLE)
            if before is not None:
                os.environ[STORE_VARIABLE] = before
