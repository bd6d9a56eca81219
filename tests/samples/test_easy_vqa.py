"""Data that nobody here made: all of easy-VQA, imported the way any JSON Lines file is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mbpo_core.config import SamplesConfig
from mbpo_core.samples.inputs import named_images
from mbpo_core.store.reader import ArtifactReader
from tests.samples.helpers import import_samples, opened, write_lines

DATA = Path(pytest.importorskip("easy_vqa").__file__).parent / "data"
RAW = [
    (split, *row) for split in ("train", "test") for row in json.loads((DATA / split / "questions.json").read_text())
]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One line a question, images by path relative to the package's data folder."""
    rows = [
        {"image": f"{split}/images/{image}.png", "question": question, "answer": answer, "part": split}
        for split, question, answer, image in RAW
    ]
    return write_lines(tmp_path_factory.mktemp("easy_vqa") / "questions.jsonl", rows)


@pytest.fixture(scope="module")
def imported(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> ArtifactReader:
    return import_samples(
        tmp_path_factory.mktemp("store"),
        source="jsonl",
        path=str(lines),
        image_root=str(DATA),
        name="easy-vqa",
        max_dropped_share=0.0,
    )


def test_every_question_arrives_with_the_kind_its_answer_has(imported: ArtifactReader) -> None:
    assert len(RAW) == imported.count() == 48_248
    assert imported.manifest.dropped == {}
    rows = list(imported.rows(columns=["question", "answer", "kind", "answer_form", "choices", "source"]))
    # Counted from the package's own files, by nothing but the answer.
    expected = Counter("yes_no" if answer in ("yes", "no") else "short_text" for _, _, answer, _ in RAW)
    assert Counter(row["kind"] for row in rows) == expected
    assert expected == {"yes_no": 35_543, "short_text": 12_705}
    assert {(row["answer_form"], tuple(row["choices"]), row["source"]) for row in rows} == {("word", (), "easy-vqa")}
    assert [(row["question"], row["answer"]) for row in rows] == [(question, answer) for _, question, answer, _ in RAW]


def test_one_row_leads_back_to_its_picture(imported: ArtifactReader) -> None:
    number = 31_415
    split, question, answer, image = RAW[number]
    row = imported.slice(number, number + 1)[0]
    assert (row["question"], row["answer"]) == (question, answer)
    assert row["images"][0]["path"] == f"{image}.png"
    original = np.asarray(Image.open(DATA / split / "images" / f"{image}.png").convert("RGB"))
    stored = opened(row["images"][0]["bytes"])
    assert stored.mode == "RGB"
    assert np.array_equal(np.asarray(stored), original)
    assert len(np.unique(original.reshape(-1, 3), axis=0)) > 1  # a picture, not a blank


def test_no_picture_is_in_two_splits_and_shares_are_kept(imported: ArtifactReader) -> None:
    splits: dict[str, set[str]] = {}
    for (part, _, _, image), row in zip(RAW, imported.rows(columns=["split"]), strict=True):
        splits.setdefault(f"{part}/{image}", set()).add(row["split"])
    assert len(splits) == 5_000
    assert all(len(found) == 1 for found in splits.values())
    images = Counter(next(iter(found)) for found in splits.values())
    for split, share in {"offline": 0.5, "online": 0.3, "dev": 0.1, "eval": 0.1}.items():
        assert abs(images[split] / 5_000 - share) < 4 * (share * (1 - share) / 5_000) ** 0.5


def test_the_listing_names_all_pictures(lines: Path) -> None:
    config = SamplesConfig(source="jsonl", path=str(lines), image_root=str(DATA))
    files = named_images(config)
    assert len(files) == 5_000
    assert (DATA / "train" / "images" / "0.png").resolve() in files
