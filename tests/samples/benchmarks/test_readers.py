"""Each benchmark's files, as they are published, become held-out samples through the ordinary stage."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples.benchmarks import open_benchmark
from mbpo_core.samples.inputs import named_images
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from tests.samples.benchmarks import layouts
from tests.samples.helpers import dropped, import_samples, opened, write_lines


def rows_of(store: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """All samples by id, meta read."""
    reader = import_samples(store, max_dropped_share=0.0, **settings)
    return {row["sample_id"]: row | {"meta": json.loads(row["meta"])} for row in reader.rows()}


def test_pope(tmp_path: Path) -> None:
    data, images = layouts.make_pope(tmp_path)
    rows = rows_of(tmp_path / "store", source="pope", path=str(data), image_root=str(images))
    assert list(rows) == [
        f"coco_pope_{subset}-{number}" for subset in ("random", "popular", "adversarial") for number in (1, 2)
    ]
    row = rows["coco_pope_random-2"]
    assert (row["question"], row["answer"]) == ("Is there a dining table in the image?", "no")
    assert (row["kind"], row["answer_form"], row["split"], row["source"]) == ("yes_no", "free", "eval", "pope")
    assert row["meta"] == {
        "benchmark": "pope",
        "probe": "existence_random",
        "scene_id": "COCO_val2014_000000000002.jpg",
        "subject": "dining table",
    }
    assert rows["coco_pope_adversarial-2"]["meta"]["subject"] == "umbrella"
    assert row["images"][0]["path"] == "COCO_val2014_000000000002.jpg"
    assert opened(row["images"][0]["bytes"]).size == (8, 6)


def test_one_file_of_pope_alone(tmp_path: Path) -> None:
    data, images = layouts.make_pope(tmp_path)
    file = data / "output" / "coco" / "coco_pope_popular.json"
    rows = rows_of(tmp_path / "store", source="pope", path=str(file), image_root=str(images))
    assert {row["meta"]["probe"] for row in rows.values()} == {"existence_popular"}


def test_amber(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "store", source="amber", path=str(layouts.make_amber(tmp_path)))
    assert list(rows) == ["amber-1", "amber-2", "amber-1005", "amber-1006", "amber-1007", "amber-1008"]
    described = rows["amber-1"]
    assert (described["kind"], described["question"]) == ("open", "Describe this image.")
    assert (described["answer"], described["answer_form"]) == ("sky, forest, person", "free")
    assert described["meta"] == {
        "benchmark": "amber_generative",
        "probe": "amber_generative",
        "scene_id": "AMBER_1.jpg",
        "amber_id": 1,
        "truth": ["sky", "forest", "person"],
        "hallucination": ["cloud", "dog"],
        "synonyms": {"sky": [], "forest": ["tree", "leave"], "person": ["people", "man"], "cloud": [], "dog": []},
        "vocabulary": ["cloud", "dog", "forest", "leave", "man", "people", "person", "sky", "tree"],
        "safe_words": ["orange", "snack", "line"],
    }
    asked = {
        name: (row["answer"], row["meta"]["probe"], row["meta"]["dimension"])
        for name, row in rows.items()
        if row["kind"] == "yes_no"
    }
    assert asked == {
        "amber-1005": ("yes", "amber_attribute", "attribute-state"),
        "amber-1006": ("no", "amber_existence", "hallucination"),
        "amber-1007": ("no", "amber_attribute", "attribute-number"),
        "amber-1008": ("no", "amber_relation", "relation"),
    }
    assert rows["amber-1006"]["meta"]["benchmark"] == "amber_discriminative"


def test_one_query_file_of_amber_alone(tmp_path: Path) -> None:
    root = layouts.make_amber(tmp_path)
    query = root / "data" / "query" / "query_discriminative.json"
    rows = rows_of(tmp_path / "store", source="amber", path=str(query), image_root=str(root))
    assert {row["kind"] for row in rows.values()} == {"yes_no"}


def test_mmhal(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "store", source="mmhal", path=str(layouts.make_mmhal(tmp_path)))
    assert [row["images"][0]["path"] for row in rows.values()] == ["0_b.jpg", "1_b.jpg", f"{2:016x}.jpg"]
    row = rows["mmhal-1"]
    assert (row["kind"], row["answer_form"]) == ("open", "free")
    assert row["answer"] == "The cap of the fire hydrant is yellow."
    assert row["meta"] == {
        "benchmark": "mmhal",
        "probe": "mmhal",
        "question_type": "adversarial",
        "question_topic": "outdoor",
        "image_id": "0000000000000001",
        "image_src": "https://farm4.staticflickr.com/3/1_b.jpg",
        "image_content": ["Fire hydrant", "Person"],
        "scene_id": "images/1_b.jpg",
    }


def test_vilp_asks_with_the_fact_and_without(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "store", source="vilp", path=str(layouts.make_vilp(tmp_path / "vilp")))
    assert len(rows) == 12
    assert rows["vilp-f-0-2"]["question"] == (
        "Please answer with one word: A cat has four legs. How many legs does the animal have?"
    )
    assert rows["vilp-p-0-2"]["question"] == "Please answer with one word: How many legs does the animal have?"
    assert [rows[f"vilp-p-1-{number}"]["answer"] for number in (1, 2, 3)] == ["Sphere", "Cube", "Cone"]
    assert {(row["kind"], row["answer_form"]) for row in rows.values()} == {("short_text", "free")}
    meta = {"benchmark": "vilp", "probe": "vilp_p", "vilp_answer": 3, "instance": "p-1", "scene_id": "1-3"}
    assert rows["vilp-p-1-3"]["meta"] == meta
    assert opened(rows["vilp-f-0-3"]["images"][0]["bytes"]).getpixel((4, 4)) == (120, 90, 0)


def test_vilp_pictures_in_the_struct_that_datasets_writes(tmp_path: Path) -> None:
    path = layouts.make_vilp(tmp_path / "vilp")
    plain = pq.read_table(path).to_pylist()
    boxed = [
        {key: {"bytes": value, "path": None} if key.startswith("image") else value for key, value in row.items()}
        for row in plain
    ]
    pq.write_table(pa.Table.from_pylist(boxed), path)
    assert len(rows_of(tmp_path / "store", source="vilp", path=str(path))) == 12


def test_vlind_asks_each_check_with_a_right_and_a_wrong_statement(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "store", source="vlind", path=str(layouts.make_vlind(tmp_path)))
    told = [
        (
            row["meta"]["check"],
            row["meta"]["statement"],
            row["answer"],
            row["question"].split("\n")[-2],
            row["meta"]["scene_id"],
        )
        for row in rows.values()
    ]
    world, fact = "images/counterfactual/diet/3_Pandas eat meat.", "images/factual/diet/3_Pandas eat bamboo./0.jpg"
    meat, plants = "Statement: Pandas are carnivores.", "Statement: Pandas are herbivores."
    assert told == [
        ("CK", True, "True", plants, fact),
        ("CK", False, "False", meat, fact),
        ("VP", True, "True", "Statement: There is a panda in the given image.", f"{world}/7.jpg"),
        ("VP", False, "False", "Statement: There is a zebra in the given image.", f"{world}/7.jpg"),
        ("CB", True, "True", meat, f"{world}/7.jpg"),
        ("CB", False, "False", plants, f"{world}/7.jpg"),
        ("LP", True, "True", meat, f"{world}/4.jpg"),
        ("LP", False, "False", plants, f"{world}/4.jpg"),
        ("LP", True, "True", meat, f"{world}/7.jpg"),
        ("LP", False, "False", plants, f"{world}/7.jpg"),
    ]
    assert {row["meta"]["instance"] for row in rows.values()} == {"0"}  # the other has no good picture
    assert "Context: Pandas eat meat.\n" in rows["vlind-0-CB-true"]["question"]
    assert "common sense" in rows["vlind-0-CK-true"]["question"]
    assert {(row["kind"], tuple(row["choices"])) for row in rows.values()} == {("multiple_choice", ("True", "False"))}
    assert rows["vlind-0-LP-7-true"]["question"].endswith("Only respond in True or False.")  # no options listed below


def test_what_cannot_be_asked_is_kept_aside(tmp_path: Path) -> None:
    data, images = layouts.make_pope(tmp_path)
    file = data / "output" / "coco" / "coco_pope_random.json"
    name = "COCO_val2014_000000000001.jpg"
    lines: list[Any] = [
        layouts.pope_line(1, name, "dog", "yes"),
        layouts.pope_line(2, name, "cat", "maybe"),
        layouts.pope_line(3, "COCO_val2014_000000000009.jpg", "cat", "no"),
        layouts.pope_line(4, "../secret.jpg", "cat", "no"),
        {"question_id": 5, "image": name, "label": "no"},
        '{"question_id": 6, ',
        layouts.pope_line(1, name, "cat", "no"),
    ]
    layouts.put_picture(tmp_path / "secret.jpg")
    write_lines(file, lines)
    reader = import_samples(tmp_path / "store", source="pope", path=str(file), image_root=str(images))
    assert [row["sample_id"] for row in reader.rows()] == ["coco_pope_random-1"]
    told = [(row["sample_id"], row["reason"]) for row in reader.rows("dropped")]
    assert told == [
        ("coco_pope_random-2", "answer_not_in_form"),
        ("coco_pope_random-3", "unreadable_image"),
        ("coco_pope_random-4", "image_outside_root"),
        ("coco_pope_random-5", "missing_value"),
        ("row-5", "missing_value"),
        ("coco_pope_random-1", "duplicate_id"),
    ]


def test_items_without_what_they_need_are_kept_aside(tmp_path: Path) -> None:
    root = layouts.make_amber(tmp_path)
    queries = json.loads((root / "data" / "query" / "query_all.json").read_text())
    layouts.put_json(root / "data" / "query" / "query_all.json", [*queries, queries[0] | {"id": 99}, {"id": 3}, "x"])
    reader = import_samples(tmp_path / "store", source="amber", path=str(root))
    assert reader.count() == 6
    details = [row["detail"] for row in reader.rows("dropped")]
    assert [detail.partition(": ")[2] for detail in details] == [
        "item 6: annotations.json has no id 99",
        "item 7: image is None, expected a text",
        "item 8: a JSON str, expected an object",
    ]


def test_a_vlind_instance_that_lacks_a_picture_is_left_out_whole(tmp_path: Path) -> None:
    root = layouts.make_vlind(tmp_path)
    instance = layouts.VLIND_KEYS | {"context_id": 8, "aggregated_human_label_good_images": {"7": 2}}
    layouts.put_json(root / "data.json", [*json.loads((root / "data.json").read_text()), instance])
    reader = import_samples(tmp_path / "store", source="vlind", path=str(root))
    assert reader.count() == 10
    assert dropped(reader) == {"row-10": "missing_value"}


MAKERS: dict[str, Any] = {
    "pope": lambda folder: layouts.make_pope(folder)[0],
    "amber": layouts.make_amber,
    "mmhal": layouts.make_mmhal,
    "vilp": lambda folder: layouts.make_vilp(folder / "vilp").parent,
    "vlind": layouts.make_vlind,
}


@pytest.mark.parametrize("source", MAKERS)
def test_another_folder_is_refused_with_what_was_expected(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no .* files") as raised:
        open_benchmark(SamplesConfig(source=source, path=str(tmp_path)))  # type: ignore[arg-type]
    assert raised.value.where == str(tmp_path)
    assert raised.value.remedy
    with pytest.raises(DataError, match="does not exist"):
        open_benchmark(SamplesConfig(source=source, path=str(tmp_path / "gone")))  # type: ignore[arg-type]


CHANGED: list[tuple[str, str, Any, str]] = [
    ("pope", "output/coco/coco_pope_random.json", {"question_id": 1, "image": "a", "text": "b"}, "no label"),
    ("amber", "data/query/query_all.json", [{"id": 1, "image": "a"}], "no query"),
    ("amber", "data/annotations.json", {"1": {}}, "holds a JSON dict"),
    ("amber", "data/relation.json", {}, "holds nothing"),
    ("mmhal", "response_template.json", [{"question": "q", "gt_answer": "a"}], "no question_type, image_content"),
    ("vlind", "data.json", [{"concept": "x"}], "no context_id, context"),
]


@pytest.mark.parametrize(("source", "file", "value", "problem"), CHANGED)
def test_another_layout_is_refused(source: str, file: str, value: Any, problem: str, tmp_path: Path) -> None:
    folder = MAKERS[source](tmp_path)
    (folder / file).write_text(json.dumps(value), encoding="utf-8")
    config = SamplesConfig(source=source, path=str(folder), image_root=str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=problem):
        open_benchmark(config)
    (folder / file).write_text("no json", encoding="utf-8")
    with pytest.raises(DataError, match="JSON"):
        open_benchmark(config)


def test_a_parquet_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["q"]}), tmp_path / "ViLP.parquet")
    with pytest.raises(DataError, match="no image1, answer1"):
        open_benchmark(SamplesConfig(source="vilp", path=str(tmp_path)))


@pytest.mark.parametrize("source", ["pope", "amber", "mmhal"])
def test_the_wrong_picture_folder_is_refused_before_any_row(source: str, tmp_path: Path) -> None:
    folder = MAKERS[source](tmp_path)
    (tmp_path / "empty").mkdir()
    config = SamplesConfig(source=source, path=str(folder), image_root=str(tmp_path / "empty"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="none of the benchmark's pictures is there") as raised:
        open_benchmark(config)
    assert "--images" in str(raised.value)


@pytest.mark.parametrize("source", MAKERS)
def test_only_the_benchmarks_own_files_and_pictures_count(source: str, tmp_path: Path) -> None:
    """A log beside them changes nothing; a changed picture or question makes a new artifact."""
    folder = MAKERS[source](tmp_path / "in")
    root = {"image_root": str(tmp_path / "in" / "val2014")} if source == "pope" else {}
    config = SamplesConfig(source=source, path=str(folder), **root)  # type: ignore[arg-type]

    def made() -> str:
        settings = {"source": source, "path": str(folder), **root}
        return import_samples(tmp_path / "store", max_dropped_share=0.0, **settings).manifest.digest

    first = made()
    (folder / "notes.json").write_text("{}", encoding="utf-8")
    assert made() == first
    for picture in list(named_images(config))[:1]:
        layouts.put_picture(picture, (1, 2, 3), (9, 9))
        assert made() != first
    external = STAGES["samples"].external(config)["path"]
    assert external.only is not None
    assert all(file.is_relative_to(external.path) for file in external.only())


def test_an_interrupted_import_goes_on(tmp_path: Path) -> None:
    """Parts of a few rows: what comes out does not depend on how it was cut."""
    path = layouts.make_vilp(tmp_path / "vilp")
    whole = import_samples(tmp_path / "a", source="vilp", path=str(path))
    parts = import_samples(tmp_path / "b", source="vilp", path=str(path), part_rows=5)
    assert list(whole.rows()) == list(parts.rows())
    assert len(Store(tmp_path / "b").runs()) == 0


def test_the_page_names_what_each_row_says(tmp_path: Path) -> None:
    """docs/benchmarks.md lists the keys of meta by probe, as the readers fill them."""
    page = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    table = page.split("## What each row says")[1]
    told = {
        probe: set(re.findall(r"`(\w+)`", keys))
        for probes, keys in re.findall(r"^\| [^|]+ \| (`[^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
        for probe in re.findall(r"`(\w+)`", probes)
        if probe != "probe"
    }
    filled: dict[str, set[str]] = {}
    for source, make in MAKERS.items():
        folder = make(tmp_path / source)
        root = {"image_root": str(tmp_path / source / "val2014")} if source == "pope" else {}
        for row in rows_of(tmp_path / "store", source=source, path=str(folder), **root).values():
            filled.setdefault(row["meta"]["probe"], set()).update(set(row["meta"]) - {"probe", "benchmark"})
    assert told == filled
