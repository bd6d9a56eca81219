"""The results as files that people open."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mbpo_core.ablation.page import render_page
from mbpo_core.ablation.plots import all_pictures
from mbpo_core.ablation.results import Results
from mbpo_core.ablation.table import results_markdown
from mbpo_core.errors import ConfigError

_MARK = "results.json"  # a folder with it is one of ours


def refuse_other_folder(folder: Path) -> None:
    """The folder is replaced, so it must hold earlier results or nothing.

    Raises:
        ConfigError: it holds something else.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / _MARK).exists() or not any(folder.iterdir()))):
        raise ConfigError(
            "the output folder holds something else, which would be deleted",
            where=str(folder),
            expected="a new or empty folder, or one with earlier results",
            remedy="Name another one with --output.",
        )


def publish_results(results: Results, folder: Path, commands: Sequence[str]) -> Path:
    """Write index.html, results.parquet, results.json, table.md and pictures; all of them or none.

    Args:
        results: to write.
        folder: is replaced if it holds earlier results.
        commands: that make it again, for the page.

    Returns:
        The page.

    Raises:
        ConfigError: the folder holds something else.
    """
    refuse_other_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pictures = all_pictures(results)
        for form, drawn in (("svg", pictures), ("png", all_pictures(results, "png"))):
            for name, _, picture in drawn:
                (fresh / f"{name}.{form}").write_bytes(picture)
        rows = ",\n".join(map(json.dumps, results.rows()))
        (fresh / _MARK).write_text(f"[\n{rows}\n]\n", encoding="utf-8")
        _write_parquet(results, fresh / "results.parquet")
        (fresh / "table.md").write_text(results_markdown(results) + "\n", encoding="utf-8")
        (fresh / "index.html").write_text(render_page(results, pictures, commands), encoding="utf-8")
        fresh.chmod(0o755)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder / "index.html"


def _write_parquet(results: Results, path: Path) -> None:
    """Columns have the types of their kind also where every value is null."""
    import pyarrow as pa
    import pyarrow.parquet

    rows = results.table()
    texts = {"testbed", "cell", "metric", *results.factors}
    types = {name: pa.string() if name in texts else pa.float64() for name in rows[0]}
    schema = pa.schema(types | {"seed": pa.int64(), "n": pa.int64()})
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def _swap(fresh: Path, folder: Path) -> None:
    """Put the new folder where the old one was; whoever looks sees one of them whole."""
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
