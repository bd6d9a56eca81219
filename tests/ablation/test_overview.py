"""What the testbeds of a grid say together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mbpo_core.ablation.overview import overview_markdown, overview_picture, tables
from mbpo_core.ablation.publish import publish_overview
from mbpo_core.ablation.results import Results
from mbpo_core.errors import ConfigError
from tests.ablation.making import grid, results


@pytest.fixture(scope="module")
def several() -> list[Results]:
    """Two testbeds: on the one a method gains surely, on the other it loses; the other method is there once."""
    asked = grid({"method": ["mfpo", "sft"]}, seeds=3, testbeds={"soft": {}, "hard": {}})
    soft, hard = asked.on()
    return [
        results(soft, {"base": [50, 50, 50], "mfpo": [88, 90, 92], "sft": [49, 52, 50]}),
        results(hard, {"base": [50, 50, 50], "mfpo": [21, 20, 22]}),
    ]


def test_a_row_a_testbed_and_a_column_a_cell(several: list[Results]) -> None:
    title, cells, rows = tables(several)[0]
    assert title == "Colour against the prior, unseen objects"
    assert cells == ["base", "MFPO", "SFT"]
    assert rows == [
        ("soft", [("50.0 ±0.0", ""), ("90.0 ±5.0", "better"), ("50.3 ±3.8", "")]),
        ("hard", [("50.0 ±0.0", ""), ("21.0 ±2.5", "worse"), ("–", "")]),
    ]
    table = overview_markdown(several)
    assert "| testbed | base | MFPO | SFT |" in table
    assert "| hard | 50.0 ±0.0 | **21.0 ±2.5** | – |" in table
    assert table.endswith("3 seeds ± half the 95 % t-interval over seeds.")


def test_the_picture_names_testbeds_and_cells(several: list[Results]) -> None:
    picture = overview_picture(several)
    assert picture == overview_picture(several)
    text = [line.strip() for line in "".join(ElementTree.fromstring(picture).itertext()).splitlines()]
    assert {"soft", "hard", "base", "MFPO", "SFT"} <= set(text)
    assert overview_picture(several, "png").startswith(b"\x89PNG")


def test_files_lie_beside_the_testbeds(several: list[Results], tmp_path: Path) -> None:
    page = publish_overview(several, tmp_path, "<b>beds</b>", ["mbpo ablation --grid <i>"])
    assert page == tmp_path / "overview" / "index.html"
    assert {path.name for path in page.parent.iterdir()} == {
        "index.html", "overview.png", "overview.svg", "results.json", "table.md",
    }  # fmt: skip
    rows = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert rows == [row for found in several for row in found.rows()]
    text = page.read_text(encoding="utf-8")
    assert "<b>beds" not in text
    assert "<i>" not in text
    assert set(re.findall(r'href="([^"]*)"', text)) == {"../soft/index.html", "../hard/index.html"}
    assert all(link.startswith("data:image/svg+xml;base64,") for link in re.findall(r'src="([^"]*)"', text))


def test_a_folder_of_somebody_else_is_left_alone(several: list[Results], tmp_path: Path) -> None:
    (tmp_path / "overview").mkdir()
    (tmp_path / "overview" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds something else"):
        publish_overview(several, tmp_path, "beds", [])
