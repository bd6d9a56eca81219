"""easy-VQA's selection: what rows say, who stands where, how often the prior is contradicted; and a short training."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.easy_vqa import selection
from benchmarks.easy_vqa.__main__ import main
from benchmarks.easy_vqa.export import write_parquet
from benchmarks.easy_vqa.prior import DEV, EVAL, NEUTRAL, POOL, conflicts, prior_answer
from benchmarks.easy_vqa.rows import Row, data_folder, read_rows, truths
from benchmarks.easy_vqa.selection import SETTINGS, Selected, Setting, base_rows, image_parts, pool_rows, probe_rows
from mbpo_core.config import load_config
from mbpo_core.errors import DataError
from tests.samples.helpers import import_samples

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read_rows(data_folder())


@pytest.mark.parametrize(
    ("question", "answer", "topic", "subject", "negated", "present"),
    [
        ("is there a red shape?", "yes", "has_color", "red", False, True),
        ("is there a red shape in the image?", "no", "has_color", "red", False, False),
        ("is there not a teal shape?", "no", "has_color", "teal", True, True),
        ("does the image not contain a circle?", "yes", "has_shape", "circle", True, False),
        ("is no circle present?", "no", "has_shape", "circle", True, True),
        ("what color is the triangle?", "blue", "color", "triangle", False, None),
        ("what is the blue shape?", "circle", "shape", "blue", False, None),
        ("what shape is present?", "rectangle", "shape", "", False, None),
    ],
)
def test_what_a_row_asks(
    question: str, answer: str, topic: str, subject: str, negated: bool, present: bool | None
) -> None:
    row = Row("train/0", "train/0", question, answer)
    assert (row.topic, row.subject, row.negated) == (topic, subject, negated)
    if present is not None:
        assert row.present is present
        assert row.answer_if(present) == answer != row.answer_if(not present)


@pytest.mark.parametrize(
    ("question", "answer", "says", "against"),
    [
        ("is there a red shape?", "yes", "yes", False),
        ("is there a red shape?", "no", "yes", True),
        ("is there not a red shape?", "yes", "no", True),
        ("is a brown shape present?", "yes", "no", True),
        ("is no brown shape present?", "yes", "yes", False),
        ("is there a black shape?", "no", None, False),
        ("is there a circle?", "no", None, False),
        ("what is the red shape?", "circle", None, False),
    ],
)
def test_what_the_prior_says(question: str, answer: str, says: str | None, against: bool) -> None:
    row = Row("train/0", "train/0", question, answer)
    assert (prior_answer(row), conflicts(row)) == (says, against)


def test_the_truth_of_a_picture_comes_from_its_rows() -> None:
    told = [
        Row("train/0", "train/0", "what color is the circle?", "red"),
        Row("train/1", "train/1", "is there a teal shape?", "no"),
        Row("train/2", "train/1", "is there not a triangle?", "no"),
        Row("train/3", "train/2", "what is the gray shape?", "rectangle"),
    ]
    assert truths(told, "color") == {"train/0": "red", "train/2": "gray"}
    assert truths(told, "shape") == {"train/0": "circle", "train/1": "triangle", "train/2": "rectangle"}


def test_no_picture_is_in_two_parts_and_eval_is_the_packages_test_part(rows: list[Row]) -> None:
    base = {row.image for row in base_rows(rows, 0.0)} | {row.image for row in base_rows(rows, 0.03)}
    images: dict[str, set[str]] = defaultdict(set)
    for one in [*pool_rows(rows, "natural"), *pool_rows(rows, "uniform"), *probe_rows(rows)]:
        images[one.split].add(one.row.image)
    assert sorted(images) == ["dev", "eval", "offline", "online"]
    parts = [base, *images.values()]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert all(image.startswith("test/") for image in images["eval"])
    assert Counter(image_parts(rows).values()) == {
        "base": 2000,
        "offline": 800,
        "online": 600,
        "dev": 600,
        "eval": 1000,
    }


@pytest.mark.parametrize(("setting", "share"), [("natural", 0.03), ("uniform", 0.5)])
def test_a_pool_contradicts_the_prior_as_often_as_it_says(rows: list[Row], setting: Setting, share: float) -> None:
    pool = list(pool_rows(rows, setting))
    spoken = [one.row for one in pool if prior_answer(one.row) is not None]
    assert {row.subject for row in spoken} == set(POOL)
    assert sum(map(conflicts, spoken)) / len(spoken) == pytest.approx(share, abs=0.01)
    neutral = [one.row for one in pool if one.row.topic == "has_color" and one.row.subject in NEUTRAL]
    assert sum(row.present for row in neutral) * 2 == len(neutral) > 300
    assert len({one.row.name for one in pool}) == len(pool)


@pytest.mark.parametrize(("asked", "share"), [(0.0, 0.0), (0.03, 0.03)])
def test_the_base_sees_the_prior_hold(rows: list[Row], asked: float, share: float) -> None:
    spoken = [row for row in base_rows(rows, asked) if prior_answer(row) is not None]
    assert {row.subject for row in spoken} == {*POOL, *DEV, *EVAL}
    assert sum(map(conflicts, spoken)) / len(spoken) == pytest.approx(share, abs=0.002)


def test_probes_ask_what_their_names_say(rows: list[Row]) -> None:
    probes: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for one in probe_rows(rows):
        probes[one.split, one.probe].append(one.row)
    for split, own in (("dev", DEV), ("eval", EVAL)):
        assert {row.subject for row in probes[split, "prior_conflict"]} == set(own)
        assert all(conflicts(row) for row in probes[split, "prior_conflict"])
        assert {row.subject for row in probes[split, "prior_conflict_seen"]} == set(POOL)
        assert all(conflicts(row) for row in probes[split, "prior_conflict_seen"])
        assert {row.subject for row in probes[split, "prior_consistent"]} == set(own)
        assert all(prior_answer(row) == row.answer for row in probes[split, "prior_consistent"])
        assert all(prior_answer(row) is None for row in probes[split, "neutral"])
        assert sum(row.present for row in probes[split, "existence_random"]) * 2 == len(
            probes[split, "existence_random"]
        )
    assert {probe: len(found) for (split, probe), found in probes.items() if split == "eval"} == {
        "prior_conflict": 1200, "prior_conflict_seen": 631, "prior_consistent": 724, "neutral": 1200,
        "existence_random": 638, "shape": 1200,
    }  # fmt: skip


def _tiny_package(folder: Path) -> Path:
    """The package's layout with four pictures and a few rows, by hand."""
    questions = {
        "train": [
            ["what color is the shape?", "red", 0],
            ["is there a circle?", "yes", 0],
            ["is no red shape present?", "no", 0],
            ["is there a brown shape?", "no", 1],
        ],
        "test": [["is there a blue shape?", "no", 0], ["is there a teal shape?", "no", 1]],
    }
    for part, asked in questions.items():
        (folder / part / "images").mkdir(parents=True)
        (folder / part / "questions.json").write_text(json.dumps(asked))
        for number in (0, 1):
            pixels = np.full((64, 64, 3), 40 * number + (part == "test"), np.uint8)
            Image.fromarray(pixels).save(folder / part / "images" / f"{number}.png")
    return folder


def test_a_tiny_package_is_imported_with_column_mapping_only(tmp_path: Path) -> None:
    folder = _tiny_package(tmp_path / "data")
    chosen = [Selected(row, "eval", "prior_conflict") for row in read_rows(folder) if row.image.startswith("test/")]
    assert write_parquet(tmp_path / "rows.parquet", chosen, folder) == 2
    mapping = load_config(ROOT / "deployments" / "easy-vqa.yaml", []).samples.model_dump(exclude={"path"})
    artifact = import_samples(tmp_path / "store", **mapping | {"path": str(tmp_path / "rows.parquet")})
    assert artifact.manifest.dropped == {}
    first, second = artifact.rows()
    assert (first["question"], first["answer"], first["kind"], first["split"]) == (
        "is there a blue shape?", "no", "yes_no", "eval",
    )  # fmt: skip
    assert json.loads(first["meta"]) == {
        "probe": "prior_conflict", "topic": "has_color", "subject": "blue", "prior_answer": "yes", "conflict": True,
        "scene_id": "test/0",
    }  # fmt: skip
    assert json.loads(second["meta"])["conflict"] is False
    assert first["images"][0]["bytes"] != second["images"][0]["bytes"]


def test_a_file_that_is_not_easy_vqa_is_refused(tmp_path: Path) -> None:
    folder = _tiny_package(tmp_path / "data")
    (folder / "test" / "questions.json").write_text(json.dumps([["how many shapes?", "three", 0]]))
    with pytest.raises(DataError, match="no row of easy-VQA"):
        read_rows(folder)
    (folder / "test" / "questions.json").unlink()
    with pytest.raises(DataError, match="missing"):
        read_rows(folder)


def test_the_command_writes_both_pools_and_trains_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selection, "PROBE_ROWS", 20)
    output = tmp_path / "easy-vqa"
    main(["--output", str(output), "--data-only"])
    assert sorted(path.name for path in output.iterdir()) == sorted(f"{setting}.parquet" for setting in SETTINGS)
    short = ["alignment_steps=12", "alignment_batch=8", "language_steps=12", "soft_steps=2", "batch=2"]
    command = ["--output", str(output), *(word for change in short for word in ("--set", change))]
    main(command)
    recipe = json.loads((output / "base" / "recipe.json").read_text())
    assert recipe["config"]["language_steps"] == 12
    for stage in ("alignment", "language"):
        assert recipe["summary"][f"{stage}_last_loss"] < recipe["summary"][f"{stage}_first_loss"]
    weights = [(output / "base" / name / "model.safetensors").read_bytes() for name in ("absolute", "soft")]
    assert weights[0] != weights[1]
    capsys.readouterr()
    main(command)
    assert "alignment" not in capsys.readouterr().out
