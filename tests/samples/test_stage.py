"""The stage as a whole: bad rows, bad inputs, resuming, the demo."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.demo.probes import probe_names
from mbpo_core.errors import DataError, TooManyDropped
from mbpo_core.records import Sample
from mbpo_core.samples.inputs import named_images
from mbpo_core.samples.paths import image_root
from mbpo_core.samples.readers import open_reader
from mbpo_core.samples.stage import _SeenIds
from mbpo_core.stages import STAGES
from tests.samples.helpers import dropped, encoded, import_samples, opened, picture, write_lines

GOOD = {"id": "good", "image": "a.png", "question": "Is it red?", "answer": "yes"}

BAD_ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"question": ""}, "missing_value", "question is empty"),
    ({"answer": None}, "missing_value", "answer is empty"),
    ({"image": None}, "missing_value", "image is empty"),
    ({"image": []}, "missing_value", "image is empty"),
    ({"image": [None]}, "missing_value", "image is empty"),
    ({"meta": "no json"}, "missing_value", "meta is no JSON object"),
    ({"split": "holdout"}, "missing_value", "split 'holdout' is none of offline"),
    ({"image": "gone.png"}, "unreadable_image", "no file 'gone.png' under the image root"),
    ({"image": "broken.png"}, "unreadable_image", "UnidentifiedImageError"),
    ({"image": ["a.png", "broken.png"]}, "unreadable_image", "UnidentifiedImageError"),
    ({"image": "https://example.org/a.png"}, "unreadable_image", "is a URL"),
    ({"image": "wide.png"}, "image_too_large", "100 x 1 pixels, at most 50"),
    ({"image": "../a.png"}, "image_outside_root", "leads out of the image root"),
    ({"question": "<image>\n<image>\nAre they alike?"}, "image_count", "2 <image> placeholders, image 1 pictures"),
    ({"kind": "yesno"}, "unknown_kind", "did you mean yes_no"),
    ({"kind": "multiple_choice"}, "bad_choices", "without options"),
    ({"options": ["red"]}, "bad_choices", "1 options"),
    ({"options": ["red", "blue"], "answer": "green"}, "bad_choices", "'green' is no option of AB"),
    ({"kind": "numeric"}, "answer_not_in_form", "no number in the text"),
    ({"kind": "yes_no", "answer": "maybe"}, "answer_not_in_form", "says neither yes nor no"),
    ({"id": "good"}, "duplicate_id", "an earlier row has the id 'good'"),
    ({"bad": " YES."}, "same_answer", "bad 'YES.' says what answer says"),
    ({"bad": " "}, "missing_value", "bad is blank"),
    ({"bad": ["no"]}, "missing_value", "bad is a list"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(picture()))
    (folder / "wide.png").write_bytes(encoded(picture(size=(100, 1))))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {"source": "jsonl", "path": str(path), "id_column": "id"} | more


def test_every_bad_row_is_kept_aside_with_its_reason(folder: Path, tmp_path: Path) -> None:
    rows: list[Any] = [GOOD | {"kind": None, "options": None, "split": None, "meta": None, "bad": "no"}]
    rows += [
        {"id": f"bad-{i}"} | {k: v for k, v in GOOD.items() if k != "id"} | change
        for i, (change, _, _) in enumerate(BAD_ROWS)
    ]
    rows += ['{"id": "cut', "[1, 2]", {k: v for k, v in GOOD.items() if k != "id"}]
    columns = {"kind_column": "kind", "choices_column": "options", "split_column": "split", "rejected_column": "bad"}
    columns |= {"max_pixels": 50}
    reader = import_samples(tmp_path / "store", **settings(write_lines(folder / "rows.jsonl", rows), **columns))
    assert [row["sample_id"] for row in reader.rows()] == ["good"]
    letters = list(reader.rows("dropped"))
    assert [letter["reason"] for letter in letters] == [reason for _, reason, _ in BAD_ROWS] + ["missing_value"] * 3
    details = [detail for _, _, detail in BAD_ROWS] + ["the line is no JSON", "the line is a JSON list", "id is empty"]
    for number, (letter, detail) in enumerate(zip(letters, details, strict=True), start=1):
        assert letter["detail"].startswith(f"row {number}: ")
        assert detail in letter["detail"]
        assert letter["stage"] == "samples"
    assert [letter["sample_id"] for letter in letters[-3:]] == ["row-25", "row-26", "row-27"]
    assert json.loads(letters[0]["row"])["answer"] == "yes"
    assert set(reader.manifest.dropped) == set(STAGES["samples"].reasons)


def test_a_declared_form_is_held_to(folder: Path, tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"id": "long", "answer": "It is red."}]
    path = write_lines(folder / "rows.jsonl", rows)
    reader = import_samples(tmp_path / "store", **settings(path, answer_form="word"))
    assert dropped(reader) == {"long": "answer_not_in_form"}


def test_dropped_rows_carry_no_image_bytes(tmp_path: Path) -> None:
    cells = {"image": {"bytes": b"x" * 5000, "path": "b.png"}, "question": "Why? " * 1000, "answer": "yes"}
    pq.write_table(
        pa.Table.from_pylist([cells, cells | {"image": {"bytes": encoded(picture()), "path": None}}]),
        tmp_path / "a.parquet",
    )
    reader = import_samples(tmp_path / "store", source="parquet", path=str(tmp_path / "a.parquet"))
    letter = next(iter(reader.rows("dropped")))
    assert json.loads(letter["row"])["image"] == {"bytes": "<5000 bytes>", "path": "b.png"}
    assert len(letter["row"]) < 3000


def test_too_many_bad_rows_stop_the_stage_with_the_top_reasons(folder: Path, tmp_path: Path) -> None:
    rows = [GOOD | {"id": str(i), "image": "a.png" if i < 18 else "gone.png"} for i in range(20)]
    path = write_lines(folder / "rows.jsonl", rows)
    with pytest.raises(
        TooManyDropped, match=r"2 of 20 rows are unusable: unreadable_image 2 \(18: row 18: no file 'gone.png'"
    ):
        import_samples(tmp_path / "store", **settings(path, max_dropped_share=0.05))
    assert import_samples(tmp_path / "store", **settings(path, max_dropped_share=0.1)).count() == 18


def write_rotten(path: Path) -> None:
    """A Parquet file whose questions are no UTF-8, as a broken exporter or disk leaves it."""
    cells = {name: pa.array([value]) for name, value in GOOD.items()}
    pq.write_table(pa.table(cells | {"question": pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())}), path)


def test_a_saved_dataset_names_the_column_it_cannot_decode(tmp_path: Path) -> None:
    from datasets import Dataset

    cells = {name: pa.array([value]) for name, value in GOOD.items()}
    rotten = pa.table(cells | {"answer": pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())})
    Dataset(rotten).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"column 'answer' cannot be read: 'utf-8' codec .*map another column"):
        open_reader(SamplesConfig(source="dataset", path=str(tmp_path / "saved")))


def refusals(folder: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Inputs that are wrong as a whole, and what the message must say."""
    good = write_lines(folder / "rows.jsonl", [GOOD | {"size": 3}])
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "array.jsonl").write_text(json.dumps([[GOOD]]))
    (folder / "cut.json").write_text(json.dumps([GOOD, GOOD])[:-9])
    (folder / "no.parquet").write_bytes(b"PAR1 not really")
    (folder / "cut").mkdir()
    (folder / "cut" / "state.json").write_text("{}")
    (folder / "bare").mkdir()
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), folder / "empty.parquet")
    write_rotten(folder / "rotten.parquet")
    yield settings(folder / "gone.jsonl"), ["gone.jsonl' does not exist", "samples.path", "Correct samples.path"]
    yield settings(folder), ["is a folder", "a JSON Lines file", "samples.source to dataset"]
    yield settings(good) | {"source": "dataset"}, ["is a file", "a dataset folder", "jsonl or parquet"]
    yield settings(good, image_root=str(folder / "nowhere")), ["nowhere' is not a folder", "samples.image_root"]
    yield settings(folder / "empty.jsonl"), ["the input has no rows", "empty.jsonl"]
    yield settings(folder / "array.jsonl"), ["no JSON object", "is a JSON list", "array of such objects"]
    yield settings(folder / "cut.json"), ["the JSON array is broken: item 1 is", "cut.json", "cut short"]
    yield (
        settings(good, answer_column="anser"),
        [
            "no column 'anser'; the closest is 'answer'",
            "samples.answer_column",
            "one of id, image, question, answer, size",
            "Set samples.answer_column=answer",
        ],
    )
    yield (
        settings(good, image_column="zzz"),
        ["no column 'zzz'", "samples.image_column", "Set samples.image_column=image"],
    )
    yield settings(good, question_column="IMAGE"), ["no column 'IMAGE'; the closest is 'image'"]
    yield settings(good, json_column="text"), ["no column 'text'", "samples.json_column", "one of id, image"]
    numbers = write_lines(folder / "numbers.jsonl", [GOOD | {"image": 7, "answer": None}, GOOD | {"image": [8]}])
    yield settings(numbers), ["column 'image' cannot be read: it holds int, e.g. 7", "samples.image_column", "inspect"]
    yield settings(good, conversation_column="size"), ["column 'size' cannot be read", "a list of turns"]
    yield settings(folder / "rotten.parquet") | {"source": "parquet"}, ["column 'question' cannot be read", "rotten"]
    yield settings("data/nowhere") | {"source": "dataset"}, ["neither a file or folder nor in the local hub cache"]
    yield settings(good, conversation_column="turns"), ["no column 'turns'", "samples.conversation_column"]
    yield settings(good, choices_column="options"), ["no column 'options'", "samples.choices_column"]
    parquet = {"source": "parquet"}
    yield settings(folder / "no.parquet") | parquet, ["not a Parquet file", "no.parquet"]
    yield settings(folder / "empty.parquet") | parquet, ["the input has no rows"]
    yield settings(folder / "bare") | parquet, ["no *.parquet file in the folder"]
    dataset = {"source": "dataset"}
    yield settings(folder / "cut") | dataset, ["the saved dataset cannot be opened", "save_to_disk"]
    yield settings(folder / "bare") | dataset, ["the folder is no dataset", "metadata.jsonl"]


def begin(config: SamplesConfig) -> None:
    """What the stage and the planner do first."""
    open_reader(config)
    image_root(config)
    named_images(config)


def test_wrong_inputs_are_named_before_any_row_is_read(folder: Path, tmp_path: Path) -> None:
    count = 0
    for given, parts in refusals(folder):
        with pytest.raises(DataError) as error:
            begin(SamplesConfig(**given))
        message = str(error.value)
        assert all(part in message for part in parts), (message, parts)
        assert error.value.remedy
        count += 1
    assert count == 22


def test_a_config_without_a_path_is_refused() -> None:
    with pytest.raises(ValueError, match="path is empty; source jsonl needs a file or folder"):
        SamplesConfig(source="jsonl")


def many(folder: Path, count: int) -> Path:
    rows = [
        GOOD | {"id": f"{i % 90}", "image": "a.png" if i % 7 else "gone.png", "answer": f"{i}"} for i in range(count)
    ]
    return write_lines(folder / "rows.jsonl", rows)


def test_part_size_does_not_show_in_what_comes_out(folder: Path, tmp_path: Path) -> None:
    path = many(folder, 120)
    readers = [import_samples(tmp_path / f"store{size}", **settings(path, part_rows=size)) for size in (7, 1000)]
    assert readers[0].ref.content == readers[1].ref.content
    assert [list(r.rows()) for r in readers[:1]] == [list(r.rows()) for r in readers[1:]]
    assert readers[0].manifest.dropped == {"duplicate_id": 30, "unreadable_image": 13}
    limited = import_samples(tmp_path / "limited", **settings(path, limit=10))
    assert limited.count() + sum(limited.manifest.dropped.values()) == 10


def test_a_killed_import_goes_on_and_ends_the_same(folder: Path, tmp_path: Path) -> None:
    """Killed after some parts; the rerun knows the ids of the finished parts, so duplicates stay duplicates."""
    path = many(folder, 120)
    given = settings(path, part_rows=20)
    script = f"""
import os, sys
from pathlib import Path
from mbpo_core.samples.normalise import Normaliser
from tests.samples.helpers import import_samples
normalise = Normaliser.normalise
def dies(self, raw):
    if raw.index == 70:
        os._exit(9)
    return normalise(self, raw)
Normaliser.normalise = dies
import_samples(Path({str(tmp_path / "killed")!r}), **{given!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=Path(__file__).parents[2]).returncode == 9
    resumed = import_samples(tmp_path / "killed", **given)
    whole = import_samples(tmp_path / "whole", **given)
    assert resumed.ref.content == whole.ref.content
    assert list(resumed.rows()) == list(whole.rows())
    assert list(resumed.rows("dropped")) == list(whole.rows("dropped"))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Reading and id-keeping, measured apart from what the store keeps of a part."""

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.parquet"
        with pq.ParquetWriter(
            path,
            pa.schema(
                [("id", pa.string()), ("image", pa.binary()), ("question", pa.string()), ("answer", pa.string())]
            ),
        ) as writer:
            for i in range(0, count, 500):
                names = [f"{n:032d}" for n in range(i, i + 500)]
                writer.write_table(
                    pa.table({"id": names, "image": [b"x" * 200] * 500, "question": names, "answer": names})
                )
        seen = _SeenIds()
        reader = open_reader(SamplesConfig(source="parquet", path=str(path)))
        tracemalloc.start()
        for row in reader.rows(["id", "image"]):
            assert seen.add(row.cells["id"])
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        seen.close()
        return top

    assert peak(20_000) < 1.5 * peak(2_000)


def test_the_demo_passes_through_whole(tmp_path: Path) -> None:
    given = {"demo_offline": 12, "demo_online": 9, "demo_dev": 2, "demo_eval": 5, "max_dropped_share": 0.0}
    reader = import_samples(tmp_path / "store", seed=3, **given, part_rows=13)
    rows = [Sample.model_validate(row) for row in reader.rows()]
    large = sum(is_large for _, is_large in probe_names())
    small = sum(not is_large for _, is_large in probe_names())
    counts = Counter(sample.split for sample in rows)
    assert counts == {"offline": 12, "online": 9, "dev": 2 * large + 1 * small, "eval": 5 * large + 2 * small}
    assert len({sample.sample_id for sample in rows}) == len(rows) == reader.manifest.total
    assert opened(rows[0].images[0].bytes or b"").size == (48, 48)
    again = import_samples(tmp_path / "other", seed=3, **given)
    assert again.ref.content == reader.ref.content
    assert import_samples(tmp_path / "other", seed=4, **given).ref.content != reader.ref.content
    natural = import_samples(tmp_path / "other", seed=3, demo_setting="natural", **given)
    assert natural.count() == reader.count()
    assert natural.ref.content != reader.ref.content


def test_opening_needs_no_heavy_imports() -> None:
    code = """
import sys, mbpo_core.samples.inputs, mbpo_core.samples.stage
print(sorted({"torch", "datasets", "pyarrow", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
