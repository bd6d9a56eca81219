"""`mbpo samples inspect`: it foretells the import, suggests columns, and touches nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import cli
from mbpo_core.config import SamplesConfig
from mbpo_core.samples.inspection import inspect_input
from tests.cli.test_looking import EVIL, said, told
from tests.samples.helpers import encoded, import_samples, picture, write_lines
from tests.test_docs import _called as called

ROW = {"image": "a.png", "question": "Is it red?", "answer": "yes"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "in").mkdir()
    (folder / "a.png").write_bytes(encoded(picture()))
    (folder / "b.jpg").write_bytes(encoded(picture(size=(60, 30)), "JPEG"))
    (folder / "c.gif").write_bytes(encoded(picture(size=(20, 40)).convert("P"), "GIF"))
    return folder


def mixed(folder: Path) -> Path:
    rows: list[Any] = [
        ROW | {"id": "0"},
        ROW | {"id": "1", "image": "b.jpg", "question": "How many?", "answer": 3},
        ROW | {"id": "2", "image": ["c.gif", "a.png"], "question": f"Which {EVIL}?", "answer": "A plate of bread."},
        ROW | {"id": "3", "image": "gone.png"},
        ROW | {"id": "4", "image": "gone.jpg"},
        ROW | {"id": "0", "question": "Again?"},
        "{broken",
        *(ROW | {"id": f"more {number}"} for number in range(20)),
    ]
    return write_lines(folder / "rows.jsonl", rows)


def test_it_foretells_the_import(folder: Path, tmp_path: Path) -> None:
    settings = {"source": "jsonl", "path": str(mixed(folder)), "id_column": "id"}
    found = inspect_input(SamplesConfig(**settings))
    reader = import_samples(tmp_path / "store", **settings)
    rows, dropped = list(reader.rows()), list(reader.rows("dropped"))
    assert (found.rows, found.looked, found.usable, found.importable) == (27, 27, len(rows), True)
    assert {problem.reason: problem.rows for problem in found.problems} == reader.manifest.dropped
    assert {problem.example for problem in found.problems} <= {letter["detail"] for letter in dropped}
    for name, column in (("kinds", "kind"), ("answer_forms", "answer_form"), ("splits", "split")):
        values = [row[column] for row in rows]
        assert getattr(found, name) == {value: values.count(value) for value in set(values)}
    assert found.pictures == {1: 22, 2: 1}
    assert found.formats == {"PNG RGB": 1, "JPEG RGB": 1, "GIF P": 1}, "each file once"
    assert found.widths
    assert found.heights
    assert (found.widths.least, found.widths.median, found.widths.most) == (8, 8, 60)
    assert (found.heights.least, found.heights.median, found.heights.most) == (6, 6, 40)
    assert [row.row for row in found.shown] == list(range(10))
    assert found.shown[1].model_dump(exclude={"split"}) == {
        "row": 1, "sample_id": "1", "question": "How many?", "answer": "3", "rejected": None, "kind": "numeric",
        "answer_form": "number", "pictures": ["60x30"], "problem": "",
    }  # fmt: skip
    assert found.shown[3].problem.startswith("unreadable_image: row 3: no file 'gone.png'")
    assert found.suggested == {}
    first = inspect_input(SamplesConfig(**settings), looked=2)
    assert (first.rows, first.looked, first.usable) == (27, 2, 2)


def test_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(mixed(folder))
    page = said(capsys, "samples", "inspect", path, "--set", "samples.id_column=id", "--rows", "20", code=0)
    for part in (
        "27 rows, the first 20 looked at", "image_column", "'a.png'", "Is it red?", "60x30", "20x40 8x6", "[bold]x[/]",
        "\\x1b[2J", "Usable: 16 of 20", "yes_no 14", "Came as: PNG RGB 1, JPEG RGB 1, GIF P 1",
        "Width: 8 to 60, median 8 pixels", "unreadable_image", "duplicate_id",
    ):  # fmt: skip
        assert part in page, part
    value = told(capsys, "samples", "inspect", path, "--set", "samples.id_column=id")
    assert (value["importable"], value["usable"], value["pictures"]) == (True, 23, {"1": 22, "2": 1})


def test_other_names_are_suggested_and_tried(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question_id": i, "img": "a.png", "text": f"Is it {i}?", "label": "no", "rejected": "yes"} for i in (1, 2)]
    path = str(write_lines(folder / "pope.json", rows))
    value = told(capsys, "samples", "inspect", path, code=1)
    assert value["missing"] == {"image_column": "image", "question_column": "question", "answer_column": "answer"}
    assert value["suggested"] == {
        "image_column": "img", "question_column": "text", "answer_column": "label", "rejected_column": "rejected",
        "id_column": "question_id",
    }  # fmt: skip
    assert (value["usable"], value["importable"]) == (2, False)
    changes = [word for name, column in value["suggested"].items() for word in ("--set", f"samples.{name}={column}")]
    page = said(capsys, "samples", "inspect", path, code=1)
    assert " ".join(["Perhaps:", *changes]) in page
    assert "As it is set nothing can be imported: the rows above need that." in page
    assert told(capsys, "samples", "inspect", path, *changes)["importable"]


def test_conversations_and_folded_columns_are_recognised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A plate."}]
    (folder / "llava.json").write_text(json.dumps([{"id": "1", "image": "a.png", "conversations": turns}]))
    value = told(capsys, "samples", "inspect", str(folder / "llava.json"), code=1)
    assert value["suggested"] == {"conversation_column": "conversations", "id_column": "id"}
    assert value["shown"][0]["answer"] == "A plate."
    text = json.dumps({"question": "What?", "chosen": "A red plate.", "rejected": "A blue plate."})
    row = {"image": {"bytes": encoded(picture()), "path": None}, "text": text, "idx": 5}
    pq.write_table(pa.Table.from_pylist([row]), folder / "rlhf_v.parquet")
    value = told(capsys, "samples", "inspect", str(folder / "rlhf_v.parquet"), code=1)
    assert value["suggested"] == {
        "json_column": "text", "answer_column": "chosen", "rejected_column": "rejected", "id_column": "idx",
    }  # fmt: skip
    assert (value["shown"][0]["answer"], value["shown"][0]["rejected"]) == ("A red plate.", "A blue plate.")


def test_a_run_config_counts_and_a_path_comes_before_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(folder / "rows.jsonl", [ROW])
    config = folder / "run.yaml"
    config.write_text(f"run: r\nsamples: {{source: jsonl, path: {path}, answer_form: sentence}}\n")
    value = told(capsys, "samples", "inspect", "--config", str(config), code=1)
    assert value["problems"][0]["reason"] == "answer_not_in_form"
    assert "None of these rows can be imported." in said(capsys, "samples", "inspect", "--config", str(config), code=1)
    other = write_lines(folder / "other.jsonl", [ROW | {"answer": "It is red."}])
    assert told(capsys, "samples", "inspect", str(other), "--config", str(config))["importable"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no input is named"),
        (["nowhere.jsonl"], "'nowhere.jsonl' does not exist"),
        (["nobody/nothing"], "set samples.allow_download: true"),
        (["--config", "demo"], "the demo's scenes are made by the import"),
        (["rows.jsonl", "--set", "samples.json_column=x"], "no column 'x'"),
    ],
)
def test_refusals(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    write_lines(folder / "rows.jsonl", [ROW])
    monkeypatch.chdir(folder)
    assert part in said(capsys, "samples", "inspect", *arguments, code=1)


def test_a_column_that_nobody_wants_may_be_broken(folder: Path) -> None:
    cells = {"image": {"bytes": encoded(picture()), "path": None}, "question": "Is it red?", "answer": "yes"}
    rotten = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    table = pa.Table.from_pylist([cells]).append_column("note", rotten)
    pq.write_table(table, folder / "a.parquet")
    found = inspect_input(SamplesConfig(source="parquet", path=str(folder / "a.parquet")))
    assert found.usable == 1
    assert "column 'note' cannot be read" in {column.name: column.holds for column in found.columns}["note"]


def test_the_command_loads_no_model_library(folder: Path) -> None:
    path = write_lines(folder / "rows.jsonl", [ROW])
    script = (
        "import sys, flows.cli\n"
        f"try: flows.cli.main(['samples', 'inspect', {str(path)!r}])\n"
        "finally: print('HEAVY', sorted({'torch', 'prefect', 'transformers', 'deepspeed'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")


def test_the_stage_still_runs_again_by_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["samples"])
    assert ended.value.code == 2
    assert "give --run, or the command inspect" in capsys.readouterr().err
    assert called(["samples", "--run", "r", "--dry-run"], monkeypatch) == ["rerun"]
    assert called(["samples", "inspect", "x.jsonl"], monkeypatch) == ["inspect_samples"]
