"""The same rows from every source, and LLaVA conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.samples.inputs import named_images
from mbpo_core.stages import STAGES
from mbpo_core.store.reader import ArtifactReader
from tests.samples.helpers import encoded, import_samples, opened, picture, write_lines

COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]
ROWS: list[dict[str, Any]] = [
    {"key": "a", "q": "Is it red?", "a": "yes", "options": [], "split": "train"},
    {"key": "b", "q": "What color is it?", "a": "green", "options": [], "split": "train"},
    {"key": "c", "q": "Which is it?", "a": "B", "options": ["red", "blue"], "split": "validation"},
    {"key": "d", "q": "How many?", "a": "1", "options": [], "split": "test"},
]
PICTURES = [encoded(picture(color)) for color in COLORS]
MAPPING = {
    "id_column": "key", "question_column": "q", "answer_column": "a", "choices_column": "options",
    "split_column": "split", "image_column": "picture", "name": "shapes",
}  # fmt: skip


def as_jsonl(folder: Path) -> dict[str, Any]:
    for row, data in zip(ROWS, PICTURES, strict=True):
        (folder / f"{row['key']}.png").write_bytes(data)
    path = write_lines(folder / "rows.jsonl", [row | {"picture": f"{row['key']}.png"} for row in ROWS])
    return {"source": "jsonl", "path": str(path)}


def table(rows: list[dict[str, Any]], pictures: list[bytes]) -> Any:
    return pa.Table.from_pylist(
        [r | {"picture": {"bytes": d, "path": None}} for r, d in zip(rows, pictures, strict=True)]
    )


def as_parquet(folder: Path) -> dict[str, Any]:
    pq.write_table(table(ROWS, PICTURES), folder / "rows.parquet", row_group_size=2)
    return {"source": "parquet", "path": str(folder / "rows.parquet")}


def as_hub_folder(folder: Path) -> dict[str, Any]:
    """Shards as the hub names them; the split stands in the file's name only."""
    (folder / "data").mkdir()
    for name, start, stop in (
        ("train-00000-of-00001", 0, 2),
        ("validation-00000-of-00001", 2, 3),
        ("test-00000-of-00001", 3, 4),
    ):
        rows = [{key: value for key, value in row.items() if key != "split"} for row in ROWS[start:stop]]
        pq.write_table(table(rows, PICTURES[start:stop]), folder / "data" / f"{name}.parquet")
    # Files are read in name order: test, train, validation.
    return {"source": "dataset", "path": str(folder)}


def as_saved_dataset(folder: Path) -> dict[str, Any]:
    from datasets import ClassLabel, Dataset, Features, Image, List, Value

    features = Features(
        key=Value("string"), q=Value("string"), a=Value("string"), options=List(Value("string")),
        split=ClassLabel(names=["test", "validation", "train"]), picture=Image(),
    )  # fmt: skip
    rows = [row | {"picture": {"bytes": data, "path": None}} for row, data in zip(ROWS, PICTURES, strict=True)]
    Dataset.from_list(rows, features=features).save_to_disk(str(folder / "saved"))
    return {"source": "dataset", "path": str(folder / "saved")}


def as_saved_splits(folder: Path) -> dict[str, Any]:
    from datasets import Dataset, DatasetDict, Image

    parts = {}
    for name in ("train", "validation", "test"):
        chosen = [(row, data) for row, data in zip(ROWS, PICTURES, strict=True) if row["split"] == name]
        rows = [{k: v for k, v in row.items() if k != "split"} | {"picture": opened(data)} for row, data in chosen]
        parts[name] = Dataset.from_list(rows).cast_column("picture", Image())
    DatasetDict(parts).save_to_disk(str(folder / "saved"))
    return {"source": "dataset", "path": str(folder / "saved")}


def as_image_folder(folder: Path) -> dict[str, Any]:
    for row, data in zip(ROWS, PICTURES, strict=True):
        (folder / f"{row['key']}.png").write_bytes(data)
    write_lines(folder / "metadata.jsonl", [row | {"file_name": f"{row['key']}.png"} for row in ROWS])
    return {"source": "dataset", "path": str(folder), "image_column": "image"}


SOURCES = [as_jsonl, as_parquet, as_hub_folder, as_saved_dataset, as_saved_splits, as_image_folder]


@pytest.mark.parametrize("write", SOURCES)
def test_every_source_gives_the_same_samples(write: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    settings = MAPPING | write(tmp_path / "in")
    reader = import_samples(tmp_path / "store", max_dropped_share=0.0, **settings)
    rows = {row["sample_id"]: row for row in reader.rows()}
    assert list(rows) == (["d", "a", "b", "c"] if write is as_hub_folder else ["a", "b", "c", "d"])
    assert [rows[key]["kind"] for key in "abcd"] == ["yes_no", "short_text", "multiple_choice", "numeric"]
    assert [rows[key]["answer_form"] for key in "abcd"] == ["word", "word", "letter", "number"]
    assert rows["c"]["question"] == "Which is it?\nA. red\nB. blue\nAnswer with the letter."
    assert [rows[key]["question"] for key in "abd"] == ["Is it red?", "What color is it?", "How many?"]
    assert {rows["a"]["split"], rows["b"]["split"]} <= {"offline", "online"}
    assert (rows["c"]["split"], rows["d"]["split"]) == ("dev", "eval")
    assert {row["source"] for row in rows.values()} == {"shapes"}
    for key, data in zip("abcd", PICTURES, strict=True):
        assert opened(rows[key]["images"][0]["bytes"]).tobytes() == opened(data).tobytes()


def test_llava_conversations(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i, data in enumerate(PICTURES):
        (tmp_path / "images" / f"{i}.png").write_bytes(data)
    turns = [
        {"from": "human", "value": "What is shown?\n<image>"},
        {"from": "gpt", "value": "A plain picture of one color."},
    ]
    rows = [{"id": f"{i}", "image": f"{i}.png", "conversations": turns} for i in range(4)]
    rows[3]["conversations"] = turns[:1]
    path = write_lines(tmp_path / "llava.jsonl", rows)
    settings = {"source": "jsonl", "path": str(path), "conversation_column": "conversations", "id_column": "id"}
    reader = import_samples(tmp_path / "store", **settings, image_root=str(tmp_path / "images"))
    found = list(reader.rows())
    assert [(row["sample_id"], row["question"], row["answer"], row["kind"], row["answer_form"]) for row in found] == [
        (str(i), "What is shown?", "A plain picture of one color.", "open", "free") for i in range(3)
    ]
    assert reader.manifest.dropped == {"missing_value": 1}


def test_several_images_a_row_and_meta(tmp_path: Path) -> None:
    for i, data in enumerate(PICTURES):
        (tmp_path / f"{i}.png").write_bytes(data)
    row = {"image": ["0.png", "1.png"], "question": "Do they differ?", "answer": True, "meta": {"probe": "pairs"}}
    reader = import_samples(tmp_path / "store", source="jsonl", path=str(write_lines(tmp_path / "rows.jsonl", [row])))
    sample = next(iter(reader.rows()))
    assert [opened(image["bytes"]).getpixel((7, 5)) for image in sample["images"]] == COLORS[:2]
    assert (sample["answer"], sample["kind"], json.loads(sample["meta"])) == ("yes", "yes_no", {"probe": "pairs"})


def ids(reader: ArtifactReader) -> list[str]:
    return [row["sample_id"] for row in reader.rows(columns=["sample_id"])]


def test_ids_made_from_content_do_not_depend_on_the_order(tmp_path: Path) -> None:
    settings = {k: v for k, v in MAPPING.items() if k != "id_column"} | as_jsonl(tmp_path)
    first = ids(import_samples(tmp_path / "store", **settings))
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(reversed(lines)))
    assert ids(import_samples(tmp_path / "store", **settings)) == first[::-1]
    assert len(set(first)) == 4
    assert all(name.startswith("shapes-") for name in first)


def test_the_listing_follows_the_source(tmp_path: Path) -> None:
    def listed(**settings: Any) -> list[str]:
        files = named_images(SamplesConfig(**MAPPING | settings))
        return [str(file.relative_to(tmp_path.resolve())) for file in files]

    settings = as_jsonl(tmp_path)
    (tmp_path / "unrelated.png").write_bytes(b"")
    assert listed(**settings) == ["a.png", "b.png", "c.png", "d.png"]
    (tmp_path / "b.png").unlink()
    assert listed(**settings) == ["a.png", "c.png", "d.png"]
    assert listed(**as_parquet(tmp_path)) == []
    by_path = [{**row, "picture": f"{row['key']}.png"} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(by_path), tmp_path / "paths.parquet")
    assert listed(source="parquet", path=str(tmp_path / "paths.parquet")) == [
        "a.png",
        "c.png",
        "d.png",
    ]
    structs = [{**row, "picture": {"bytes": None, "path": f"{row['key']}.png"}} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(structs), tmp_path / "structs.parquet")
    assert "a.png" in listed(source="parquet", path=str(tmp_path / "structs.parquet"))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / ".cache").write_bytes(b"")
    assert listed(**as_hub_folder(tmp_path / "hub")) == []
    assert STAGES["samples"].external(SamplesConfig()) == {}


def test_rejected_responses_come_along(tmp_path: Path) -> None:
    """Rows as RLHF-V's: question, chosen, rejected, image; some without a rejected response."""
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    asked = {"image": "a.png", "question": "What is shown?", "chosen": "A red plate.", "options": None}
    letters = {"image": "a.png", "question": "Which?", "chosen": "red", "options": ["red", "blue", "green"]}
    rows: list[dict[str, Any]] = [
        asked | {"rejected": " A red plate and a spoon. "},
        asked | {"rejected": "The red plate."},
        asked | {"rejected": None},
        asked | {"rejected": "a RED plate"},
        letters | {"rejected": "blue"},
        letters | {"rejected": "C"},
        letters | {"rejected": "It is blue."},
        letters | {"rejected": "A"},
    ]
    settings = {"answer_column": "chosen", "choices_column": "options", "rejected_column": "rejected"}
    path = write_lines(tmp_path / "rows.jsonl", rows)
    reader = import_samples(tmp_path / "store", source="jsonl", path=str(path), **settings)
    assert [(row["answer"], row["rejected"]) for row in reader.rows()] == [
        ("A red plate.", "A red plate and a spoon."),
        ("A red plate.", "The red plate."),
        ("A red plate.", None),
        ("A", "B"),
        ("A", "C"),
        ("A", "It is blue."),
    ]
    assert reader.manifest.dropped == {"same_answer": 2}
    assert len(set(ids(reader))) == 6, "rows that differ in the rejected response alone are different rows"
    plain = {key: value for key, value in settings.items() if key != "rejected_column"}
    without = import_samples(tmp_path / "store", source="jsonl", path=str(path), **plain)
    assert [row["rejected"] for row in without.rows()] == [None, None]
