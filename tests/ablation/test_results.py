"""A grid's numbers, marks, tables and files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet
import pytest

from mbpo_core.ablation import publish
from mbpo_core.ablation.collecting import collect
from mbpo_core.ablation.costs import Cost
from mbpo_core.ablation.grid import Trial
from mbpo_core.ablation.pareto import pareto_picture
from mbpo_core.ablation.pictures import cells_picture
from mbpo_core.ablation.plots import all_pictures
from mbpo_core.ablation.publish import publish_results
from mbpo_core.ablation.results import Results, summarize_results
from mbpo_core.ablation.table import cell_text, results_markdown, verdict
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError, DataError
from mbpo_core.store import Store
from tests.ablation.making import SETTINGS, grid, results
from tests.evaluation.rows import prediction

METRIC = "prior_conflict_accuracy"
METHODS = {"method": ["mfpo", "dpo", "sft"]}
RIGHT = {"base": [50, 50, 50], "mfpo": [88, 90, 92], "dpo": [21, 20, 22], "sft": [49, 52, 50]}


@pytest.fixture(scope="module")
def compared() -> Results:
    """Three seeds of a policy that is surely better than the base, one surely worse, and one in between."""
    return results(grid(METHODS, seeds=3, baseline="sft"), RIGHT)


def rows_of(found: Results) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["method"], row["metric"]): row for row in found.rows()}


def test_rows_have_means_and_both_intervals(compared: Results) -> None:
    row = rows_of(compared)["mfpo", METRIC]
    assert (row["testbed"], row["seeds"], row["train_tokens"]) == ("scenes", 3, 80_000)
    assert row["mean"] == pytest.approx(90.0)
    # Student's t with two degrees of freedom: 4.303 standard errors of 2 / sqrt(3) points.
    assert row["seed_high"] - row["mean"] == pytest.approx(4.303 * 2 / 3**0.5, abs=1e-2)
    assert row["low"] < 90 < row["high"]
    assert row["difference"] == pytest.approx(40.0)
    assert row["baseline_difference"] == pytest.approx(100 * (270 - 151) / 300, abs=1e-3)
    assert row["baseline_low"] < row["baseline_difference"] < row["baseline_high"]
    base = rows_of(compared)["base", METRIC]
    assert (base["difference"], base["train_tokens"]) == (None, 0)
    assert base["baseline_difference"] == pytest.approx(100 * (150 - 151) / 300, abs=1e-3)


def test_what_is_certain_is_marked(compared: Results) -> None:
    cells = ("base", "mfpo", "dpo", "sft")
    assert [verdict(compared, cell, METRIC) for cell in cells] == ["", "better", "worse", ""]
    assert [verdict(compared, cell, METRIC, baseline=True) for cell in cells] == ["", "better", "worse", ""]
    assert cell_text(compared, "mfpo", METRIC) == "90.0 ±5.0"
    table = results_markdown(compared)
    assert "| MFPO | **90.0 ±5.0** |" in table
    assert "| base | 50.0 ±0.0 |" in table


def test_it_takes_both_intervals_to_be_certain() -> None:
    """Pooled over 300 questions the gain is plain, and over seeds it is not: one seed carries it."""
    unsure = results(grid({"method": ["dpo"]}, seeds=3), {"base": [50, 50, 50], "dpo": [95, 52, 51]})
    change = unsure.summary["differences"]["dpo"][METRIC]
    assert change["seed_low"] < 0 < change["value"]
    assert verdict(unsure, "dpo", METRIC) == ""


def test_one_seed_has_its_intervals_over_questions() -> None:
    alone = results(grid({"method": ["dpo"]}, seeds=1), {"base": [50], "dpo": [90]})
    assert cell_text(alone, "base", METRIC) == "50.0 ±9.6"  # Wilson
    assert "one seed" in results_markdown(alone).lower()
    assert rows_of(alone)["dpo", METRIC]["seed_low"] is None


def test_cells_must_have_answered_the_same() -> None:
    rows = {0: [prediction(1), prediction(2, policy="dpo")]}
    costs = {cell: {0: Cost()} for cell in ("base", "dpo")}
    with pytest.raises(DataError, match="different questions"):
        summarize_results(grid({"method": ["dpo"]}, seeds=1), rows, costs, SETTINGS)


def test_table_has_a_row_a_cell_seed_and_metric(compared: Results, tmp_path: Path) -> None:
    publish_results(compared, tmp_path / "out", [])
    written = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet")
    assert {str(field.type) for field in written.schema} == {"string", "int64", "double"}
    table = written.to_pylist()
    mine = [row for row in table if row["cell"] == "mfpo" and row["metric"] == METRIC]
    assert [(row["seed"], round(row["value"], 4), row["n"]) for row in mine] == [
        (None, 0.9, 300), (0, 0.88, 100), (1, 0.9, 100), (2, 0.92, 100),
    ]  # fmt: skip
    assert [row["seed_low"] is None for row in mine] == [False, True, True, True]
    assert {row["method"] for row in mine} == {"mfpo"}
    assert {row["method"] for row in table if row["cell"] == "base"} == {None}
    costs = ("train_tokens", "sampled_tokens", "attack_passes", "cpu_training", "cpu_pairs")
    assert [mine[0][name] for name in costs] == [80_000, 2_500, 1_000, 3.0, None]


def test_pictures_are_the_same_every_time_and_show_every_cell(compared: Results) -> None:
    picture = cells_picture(compared)
    assert picture == cells_picture(compared)
    text = "".join(ElementTree.fromstring(picture).itertext())
    assert all(name in text for name in ("base", "MFPO", "DPO", "SFT"))
    assert cells_picture(compared, "png").startswith(b"\x89PNG")


def test_plots_are_those_that_the_grid_allows(compared: Results) -> None:
    two = {"negatives": ["adversarial", "noise"], "rate": ["1e-4", "5e-4"]}
    right = {"base": [1, 1]} | {f"{a}.{b}": [5, 6] for a in two["negatives"] for b in two["rate"]}
    asked = grid(two, pareto=["rate"], plots=[METRIC, "accuracy", "never_measured"])
    made = {
        name: "".join(ElementTree.fromstring(svg).itertext()) for name, _, svg in all_pictures(results(asked, right))
    }
    assert list(made) == ["cells", "effects", "interactions", "pareto"]
    assert "1e-4" in made["interactions"]
    # A panel a source of negatives; the rates are its points, named once.
    titles = [line.strip() for line in made["pareto"].splitlines()]
    assert (titles.count("noise"), titles.count("rate 5e-4")) == (1, 1)
    single = results(grid(METHODS, seeds=3, plots=[METRIC]), RIGHT)
    assert pareto_picture(single) is None
    assert [name for name, _, _ in all_pictures(single)] == ["cells"]


def test_page_stands_alone_and_escapes(compared: Results, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    page = publish_results(compared, folder, ["mbpo compare --set run=<script>alert(1)</script>"])
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    links = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert links
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for link in links)
    assert "90.0 ±5.0" in text
    assert "To SFT" in text
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == compared.rows()
    assert {path.name for path in folder.iterdir()} == {
        "cells.png", "cells.svg", "index.html", "results.json", "results.parquet", "table.md",
    }  # fmt: skip


def test_labels_of_the_users_own_probes_are_escaped(tmp_path: Path) -> None:
    asked = grid({"method": ["dpo"]}, seeds=1)
    own = results(asked, {"base": [1], "dpo": [2]}, probe="<img src=x onerror=alert(1)> $x$")
    text = publish_results(own, tmp_path / "out", []).read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "<Img src=x" not in text
    assert "onerror=alert(1)&gt;" in text


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    lacking = results(grid({"method": ["dpo"]}, seeds=1), {"base": [1], "dpo": [2]}, missing=["sft with seed 1"])
    text = publish_results(lacking, tmp_path / "out", []).read_text(encoding="utf-8")
    assert "Left out" in text
    assert "sft with seed 1" in text


def test_a_failure_leaves_the_old_page_whole(
    compared: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    before = publish_results(compared, folder, []).read_text(encoding="utf-8")

    def broken(*_: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(publish, "render_page", broken)
    with pytest.raises(OSError, match="disk full"):
        publish_results(compared, folder, ["other"])
    assert (folder / "index.html").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_costs_average_over_seeds() -> None:
    one = Cost(2, 150, 7, 10, {"samples": 1.0, "training": 0.75})
    other = Cost(4, 250, 9, 0, {"training": 0.25})
    assert Cost.mean([one, other]) == Cost(3, 200, 8, 5, {"samples": 0.5, "training": 0.5})
    assert one.total_cpu_seconds == 1.75


def test_without_the_base_or_any_whole_cell_there_is_nothing_to_compare(tmp_path: Path) -> None:
    asked = grid({"method": ["dpo"]}, seeds=1)
    trials = [Trial("base", 0, PipelineConfig(run="b")), Trial("dpo", 0, PipelineConfig(run="d"))]
    for made in ({}, {"d": {}}):
        with pytest.raises(DataError, match="base model, or every cell, lacks a seed"):
            collect(Store(tmp_path), asked, trials, made)


def test_a_folder_with_something_else_is_never_replaced(compared: Results, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years", encoding="utf-8")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(ConfigError, match="something else"):
            publish_results(compared, place, [])
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years"
    (tmp_path / "empty").mkdir()
    assert publish_results(compared, tmp_path / "empty", []).exists()
    assert publish_results(compared, tmp_path / "empty", []).exists()
