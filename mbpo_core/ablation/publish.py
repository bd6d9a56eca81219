"""The results as files that people open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mbpo_core.ablation.effects import effect_rows
from mbpo_core.ablation.grid import OVERVIEW
from mbpo_core.ablation.overview import overview_markdown, overview_page, overview_picture
from mbpo_core.ablation.page import render_page
from mbpo_core.ablation.plots import all_pictures
from mbpo_core.ablation.results import Results
from mbpo_core.ablation.table import results_markdown
from mbpo_core.folders import fresh_folder, refuse_foreign
from mbpo_core.stage import Row

_MARK = "results.json"  # a folder with it is one of ours


def refuse_other_folder(folder: Path) -> None:
    """The folder is replaced, so it must hold earlier results or nothing.

    Raises:
        ConfigError: it holds something else.
    """
    refuse_foreign(folder, _MARK)


def publish_results(results: Results, folder: Path, commands: Sequence[str]) -> Path:
    """Write index.html, results.parquet, results.json, table.md, pictures, and effects.json where there are some.

    All of them are written, or none.

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
    with fresh_folder(folder) as fresh:
        pictures = all_pictures(results)
        for form, drawn in (("svg", pictures), ("png", all_pictures(results, "png"))):
            for name, _, picture in drawn:
                (fresh / f"{name}.{form}").write_bytes(picture)
        _write_json(results.rows(), fresh / _MARK)
        if effects := effect_rows(results):
            _write_json(effects, fresh / "effects.json")
        _write_parquet(results, fresh / "results.parquet")
        (fresh / "table.md").write_text(results_markdown(results) + "\n", encoding="utf-8")
        (fresh / "index.html").write_text(render_page(results, pictures, commands), encoding="utf-8")
    return folder / "index.html"


def publish_overview(several: Sequence[Results], folder: Path, title: str, commands: Sequence[str]) -> Path:
    """Write what several testbeds say together, into the folder `overview` beside theirs.

    Args:
        several: results of each.
        folder: that holds a folder for each testbed.
        title: the grid's name.
        commands: that make it again, for the page.

    Returns:
        The page.

    Raises:
        ConfigError: the folder holds something else.
    """
    refuse_other_folder(folder / OVERVIEW)
    with fresh_folder(folder / OVERVIEW) as fresh:
        picture = overview_picture(several)
        (fresh / "overview.svg").write_bytes(picture)
        (fresh / "overview.png").write_bytes(overview_picture(several, "png"))
        _write_json([row for results in several for row in results.rows()], fresh / _MARK)
        (fresh / "table.md").write_text(overview_markdown(several) + "\n", encoding="utf-8")
        (fresh / "index.html").write_text(overview_page(several, title, picture, commands), encoding="utf-8")
    return folder / OVERVIEW / "index.html"


def _write_json(rows: Sequence[Row], path: Path) -> None:
    lines = ",\n".join(map(json.dumps, rows))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _write_parquet(results: Results, path: Path) -> None:
    """Columns have the types of their kind also where every value is null."""
    import pyarrow as pa
    import pyarrow.parquet

    rows = results.table()
    texts = {"testbed", "cell", "metric", *results.factors}
    types = {name: pa.string() if name in texts else pa.float64() for name in rows[0]}
    schema = pa.schema(types | {"seed": pa.int64(), "n": pa.int64()})
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
