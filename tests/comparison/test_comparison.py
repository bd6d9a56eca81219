"""A comparison's numbers, marks, picture and page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mbpo_core.comparison import publish
from mbpo_core.comparison.picture import comparison_picture
from mbpo_core.comparison.publish import publish_comparison
from mbpo_core.comparison.results import Comparison, Spent, compare_seeds
from mbpo_core.comparison.table import cell, comparison_markdown, verdict
from mbpo_core.errors import DataError
from mbpo_core.evaluation.summary import Summary, summarize
from tests.evaluation.rows import prediction

SPENT = Spent(steps=10, positions=80_000, sampled_tokens=2_500, cpu_seconds=3.0)


def answered(label: str, right: int, total: int = 100) -> list[dict[str, Any]]:
    return [
        prediction(number, "correct" if number < right else "wrong", policy=label, probe="prior_conflict")
        for number in range(total)
    ]


def seed_of(**right: int) -> Summary:
    return summarize([row for label, count in right.items() for row in answered(label, count)])


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Three seeds of three policies: one surely better than the base, one surely worse."""
    seeds = [seed_of(base=50, mfpo=right, dpo=20 + right % 3) for right in (88, 90, 92)]
    return compare_seeds("scenes", seeds, [{"mfpo": SPENT, "dpo": SPENT}] * 3, 80_000)


def test_means_and_intervals_over_seeds(comparison: Comparison) -> None:
    rows = {(row["method"], row["metric"]): row for row in comparison.rows()}
    row = rows["mfpo", "prior_conflict_accuracy"]
    assert (row["testbed"], row["seeds"], row["train_tokens"]) == ("scenes", 3, 80_000)
    assert row["mean"] == pytest.approx(90.0)
    # Student's t with two degrees of freedom: 4.303 standard errors of 2 / sqrt(3) points.
    assert row["high"] - row["mean"] == pytest.approx(4.303 * 2 / 3**0.5, abs=1e-2)
    assert row["difference"] == pytest.approx(40.0)
    assert rows["base", "prior_conflict_accuracy"]["difference"] is None
    assert rows["base", "prior_conflict_accuracy"]["train_tokens"] == 0
    assert cell(comparison, "mfpo", "prior_conflict_accuracy") == "90.0 ±5.0"


def test_what_is_certain_is_marked(comparison: Comparison) -> None:
    assert [verdict(comparison, label, "prior_conflict_accuracy") for label in ("base", "mfpo", "dpo")] == [
        "", "better", "worse",
    ]  # fmt: skip
    table = comparison_markdown(comparison)
    assert "| MFPO | **90.0 ±5.0** |" in table
    assert "| base | 50.0 ±0.0 |" in table
    assert "80,000 token positions" in table
    unsure = compare_seeds("scenes", [seed_of(base=50, dpo=right) for right in (45, 55)], [{"dpo": SPENT}] * 2, 1)
    assert verdict(unsure, "dpo", "prior_conflict_accuracy") == ""


def test_one_seed_has_its_intervals_over_questions() -> None:
    alone = compare_seeds("scenes", [seed_of(base=50, dpo=90)], [{"dpo": SPENT}], 5)
    assert cell(alone, "base", "prior_conflict_accuracy") == "50.0 ±9.6"  # Wilson
    assert "one seed" in comparison_markdown(alone)


def test_seeds_must_have_the_same_policies() -> None:
    with pytest.raises(DataError, match="cannot average"):
        compare_seeds("scenes", [seed_of(base=1, dpo=2), seed_of(base=1, sft=2)], [{}, {}], 1)


def test_picture_is_the_same_every_time_and_shows_every_method(comparison: Comparison) -> None:
    picture = comparison_picture(comparison)
    assert picture == comparison_picture(comparison)
    text = "".join(ElementTree.fromstring(picture).itertext())
    assert all(name in text for name in ("base", "MFPO", "DPO", "Colour against the prior"))
    assert comparison_picture(comparison, "png").startswith(b"\x89PNG")


def test_page_stands_alone_and_escapes(comparison: Comparison, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    page = publish_comparison(comparison, folder, ["mbpo compare --set run=<script>alert(1)</script>"])
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert all(link.startswith("#") for link in links)
    assert "90.0 ±5.0" in text
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == comparison.rows()
    assert {path.name for path in folder.iterdir()} == {
        "comparison.png", "comparison.svg", "index.html", "results.json", "table.md",
    }  # fmt: skip


def test_a_failure_leaves_the_old_page_whole(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    before = publish_comparison(comparison, folder, []).read_text(encoding="utf-8")

    def broken(*_: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(publish, "_page", broken)
    with pytest.raises(OSError, match="disk full"):
        publish_comparison(comparison, folder, ["other"])
    assert (folder / "index.html").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_spent_adds_up_over_rounds_and_averages_over_seeds() -> None:
    steps = [{"positions": 100, "cpu_seconds": 0.5}, {"positions": 50, "cpu_seconds": 0.25}]
    spent = Spent.of(steps, 7)
    assert spent == Spent(2, 150, 7, 0.75)
    assert Spent.mean([spent, Spent(4, 250, 9, 0.25)]) == Spent(3, 200, 8, 0.5)
