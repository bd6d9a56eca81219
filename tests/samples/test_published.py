"""Data as its authors publish it: LLaVA's JSON array, RLHF-V, RLAIF-V, TRL's preference rows, POPE-style questions."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples import json_rows
from mbpo_core.samples.json_rows import JsonReader, array_items
from mbpo_core.samples.readers import open_reader
from tests.samples.helpers import encoded, import_samples, opened, picture, write_lines

PICTURE = encoded(picture())
ASKED, BETTER, WORSE = "What is on the plate?", "A slice of bread lies on it.", "Two slices of bread lie on it."


def rows_of(reader: Any) -> list[tuple[Any, ...]]:
    return [(row["question"], row["answer"], row["rejected"], row["kind"]) for row in reader.rows()]


def test_llava_instructions_are_one_json_array(tmp_path: Path) -> None:
    """llava_instruct_150k.json: indented, `image` a file name, `conversations` of several rounds."""
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "000000033471.png").write_bytes(PICTURE)
    turns = [
        {"from": "human", "value": f"<image>\n{ASKED}"},
        {"from": "gpt", "value": BETTER},
        {"from": "human", "value": "Is it large?"},
        {"from": "gpt", "value": "It is."},
    ]
    rows = [
        {"id": "000000033471", "image": "000000033471.png", "conversations": turns},
        {"id": "text-only", "conversations": turns, "model": ""},
    ]
    path = tmp_path / "llava.json"
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    mapping = {"conversation_column": "conversations", "id_column": "id"}
    reader = import_samples(
        tmp_path / "store", source="jsonl", path=str(path), image_root=str(tmp_path / "coco"), **mapping
    )
    assert rows_of(reader) == [(ASKED, BETTER, None, "open")]
    assert reader.manifest.dropped == {"missing_value": 1}
    assert reader.manifest.identity["external"]["image_root"]["files"] == 1
    lines = write_lines(tmp_path / "llava.jsonl", rows)
    same = import_samples(
        tmp_path / "store", source="jsonl", path=str(lines), image_root=str(tmp_path / "coco"), **mapping
    )
    assert list(same.rows()) == list(reader.rows())


def test_rlhf_v_keeps_its_texts_in_json(tmp_path: Path) -> None:
    """openbmb/RLHF-V-Dataset: an HF image, and `text` with question, chosen and rejected as JSON."""
    texts = [
        json.dumps({"question": ASKED, "chosen": BETTER, "rejected": WORSE}),
        json.dumps({"question": ASKED, "chosen": BETTER}),
        "{broken",
        json.dumps([ASKED]),
    ]
    rows = [
        {
            "ds_name": "RLHF-V", "image": {"bytes": PICTURE, "path": None}, "text": text, "origin_dataset": "LCS-558K",
            "origin_split": '{"type": "question_answering"}', "idx": index, "image_path": f"{index}.jpg",
        }
        for index, text in enumerate(texts)
    ]  # fmt: skip
    (folder := tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "RLHF-V-Dataset.parquet")
    settings = {
        "source": "dataset", "path": str(folder), "json_column": "text", "id_column": "idx",
        "question_column": "question", "answer_column": "chosen", "rejected_column": "rejected",
    }  # fmt: skip
    reader = import_samples(tmp_path / "store", **settings)
    assert rows_of(reader) == [(ASKED, BETTER, WORSE, "open"), (ASKED, BETTER, None, "open")]
    details = [row["detail"] for row in reader.rows("dropped")]
    assert reader.manifest.dropped == {"missing_value": 2}
    assert "text is no JSON" in details[0]
    assert "text is a list, expected a JSON object" in details[1]
    with pytest.raises(DataError, match=r"no column 'chosenn'; the closest is 'chosen'"):
        open_reader(SamplesConfig(**settings | {"answer_column": "chosenn"}))


def test_rlaif_v_has_columns_of_its_own(tmp_path: Path) -> None:
    """openbmb/RLAIF-V-Dataset: files RLAIF-V-Dataset_000.parquet, ..., question, chosen and rejected as text."""
    (folder := tmp_path / "in").mkdir()
    for number in range(2):
        row = {
            "ds_name": "RLAIF-V", "image": {"bytes": PICTURE, "path": f"{number}.jpg"},
            "question": f"{number}: {ASKED}", "chosen": BETTER, "rejected": WORSE,
            "origin_dataset": "COCO", "origin_split": "{}", "idx": str(number), "image_path": "a/b.jpg",
        }  # fmt: skip
        pq.write_table(pa.Table.from_pylist([row]), folder / f"RLAIF-V-Dataset_{number:03d}.parquet")
    mapping = {"answer_column": "chosen", "rejected_column": "rejected", "id_column": "idx"}
    reader = import_samples(tmp_path / "store", source="dataset", path=str(folder), **mapping)
    assert rows_of(reader) == [(f"{number}: {ASKED}", BETTER, WORSE, "open") for number in range(2)]


def test_preference_rows_in_trl_form(tmp_path: Path) -> None:
    """trl-lib/rlaif-v and our own pairs: prompt, chosen and rejected as messages, images as a list."""

    def said(role: str, text: str, *, shown: bool = False) -> list[dict[str, Any]]:
        parts = [{"type": "image", "text": None}] if shown else []
        return [{"role": role, "content": [*parts, {"type": "text", "text": text}]}]

    row = {
        "images": [{"bytes": PICTURE, "path": None}],
        "prompt": said("user", ASKED, shown=True),
        "chosen": said("assistant", BETTER),
        "rejected": said("assistant", WORSE),
    }
    long = row | {"prompt": [*row["prompt"], *said("assistant", "Bread."), *said("user", "How much?")]}
    pq.write_table(pa.Table.from_pylist([row, long]), tmp_path / "pairs.parquet")
    mapping = {
        "image_column": "images", "question_column": "prompt", "answer_column": "chosen", "rejected_column": "rejected",
    }  # fmt: skip
    reader = import_samples(tmp_path / "store", source="parquet", path=str(tmp_path / "pairs.parquet"), **mapping)
    assert rows_of(reader) == [(ASKED, BETTER, WORSE, "open")]
    assert opened(next(iter(reader.rows()))["images"][0]["bytes"]).tobytes() == picture().tobytes()
    (letter,) = reader.rows("dropped")
    assert "prompt has 2 turns of the user, expected one" in letter["detail"]


def test_pope_style_questions(tmp_path: Path) -> None:
    (tmp_path / "COCO_val2014_000000310196.png").write_bytes(PICTURE)
    rows = [
        {"question_id": number, "image": "COCO_val2014_000000310196.png", "text": text, "label": label}
        for number, (text, label) in enumerate([("Is there a dog in the image?", "no"), ("Is there bread?", "yes")])
    ]
    path = write_lines(tmp_path / "coco_pope_random.json", rows)  # POPE's .json files are JSON Lines
    mapping = {"question_column": "text", "answer_column": "label", "id_column": "question_id"}
    reader = import_samples(tmp_path / "store", source="jsonl", path=str(path), **mapping)
    assert rows_of(reader) == [(row["text"], row["label"], None, "yes_no") for row in rows]


@pytest.mark.parametrize("chunk", [1, 2, 7, 2**20])
def test_an_array_is_read_in_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rows = [{"a": 'é "] }, {', "n": [1, {"b": []}]}, {}, {"a": "\n", "long": "x" * 50}, {"n": -12.5e3}]
    path = tmp_path / "rows.json"
    monkeypatch.setattr(json_rows, "_CHUNK", chunk)
    for text in (
        json.dumps(rows),
        json.dumps(rows, indent=3),
        "\ufeff \n" + json.dumps(rows, ensure_ascii=False) + "\n\n",
    ):
        path.write_text(text, encoding="utf-8")
        assert list(array_items(path)) == rows
        assert JsonReader(path).columns == ["a", "n", "long"]
    path.write_text(" [ ] ")
    assert list(array_items(path)) == []
    path.write_text('[{"a": 1}, 2, null, [3]]')
    assert [row.problem for row in JsonReader(path).rows(["a"])] == ["", *(
        f"the item is a JSON {name}, expected an object" for name in ("int", "NoneType", "list")
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a": 1}, {"a": 2', "item 1 is followed by no JSON, or the file is cut short"),
        ('[{"a": 1}', "item 1 is the last: cut short"),
        ('[{"a": 1} {"a": 2}]', "item 1 has '{' behind it, expected ','"),
        ('[{"a": 1},]', "item 1 is followed by no JSON"),
        ('[{"a": 1}]\n[{"a": 2}]', "is followed by something else than the array's end"),
        ("[{'a': 1}]", "item 0 is followed by no JSON"),
        ('[{"a": "\udcff"}]', "is followed by what is no UTF-8"),
    ],
)
def test_a_broken_array_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as error:
        JsonReader(path)
    assert problem in str(error.value)
    assert "rows.json" in str(error.value)


def test_memory_does_not_grow_with_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK", 2**12)

    def peak(count: int) -> int:
        path = tmp_path / "rows.json"
        path.write_text("[" + ",".join(json.dumps({"id": i, "q": "x" * 40}) for i in range(count)) + "]")
        tracemalloc.start()
        assert sum(1 for _ in JsonReader(path).rows(["id"])) == count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)  # what is imported at the first reading is not of the array
    assert peak(8_000) < 1.5 * peak(2_000)
