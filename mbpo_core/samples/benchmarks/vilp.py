"""ViLP: 300 questions, each about three pictures; the first picture's answer follows from the text alone.

Layout: `ViLP.parquet` with the columns question, image1, answer1, image2, answer2, image3, answer3. Pictures are
encoded bytes (plain, or in a struct with a path). A question is a distracting fact and the question proper,
"<fact>. <question>". ViLP-F asks both, ViLP-P only what stands after the first full stop, each with
"Please answer with one word: " before it. Here both are asked, 1,800 samples in all.

Source: ViLP arXiv:2501.00569, repository ViLP-team/ViLP (test_llava.py), dataset ViLP/ViLP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mbpo_core.errors import DataError
from mbpo_core.samples.benchmarks.reading import Benchmark, Item, find_file
from mbpo_core.samples.normalise import RawRow
from mbpo_core.samples.readers import ParquetReader

FILES = ("ViLP.parquet", "data/train-00000-of-00001.parquet")
NUMBERS = (1, 2, 3)
KEYS = ("question", *(f"{name}{number}" for number in NUMBERS for name in ("image", "answer")))
FORMS = ("f", "p")
REQUEST = "Please answer with one word: "


def read(path: Path, root: Path) -> Benchmark:
    """All questions, each in both forms about its three pictures; streamed, because the file holds the pictures.

    Raises:
        DataError: the file is missing, no Parquet, empty, or lacks a column.
    """
    file = find_file(path, FILES, "ViLP")
    reader = ParquetReader([file])
    if missing := [key for key in KEYS if key not in reader.columns] or ([] if reader.count else ["rows"]):
        raise DataError(
            f"the file has no {', '.join(missing)}",
            where=str(file),
            expected=f"rows with the columns {', '.join(KEYS)}",
            remedy="Take the file as it was published.",
        )
    return Benchmark(file.parent, [file], reader.count * len(NUMBERS) * len(FORMS), lambda: _rows(reader))


def question_of(given: Any, form: str) -> str:
    """The question as it is asked: with the fact (f), or without it (p); empty where there is nothing to ask."""
    whole = str(given or "").strip()
    parts = whole.split(".")
    asked = whole if form == "f" else parts[1].strip() if len(parts) > 1 else ""
    return REQUEST + asked if asked else ""


def _rows(reader: ParquetReader) -> Iterator[RawRow]:
    index = 0
    for row in reader.rows(KEYS):
        for form in FORMS:
            for number in NUMBERS:
                yield RawRow(index, _cells(row.cells, row.index, form, number))
                index += 1


def _cells(row: Mapping[str, Any], position: int, form: str, number: int) -> Item:
    return {
        "id": f"vilp-{form}-{position}-{number}",
        "image": row[f"image{number}"],
        "question": question_of(row["question"], form),
        "answer": row[f"answer{number}"],
        "kind": "short_text",
        "split": "eval",
        "meta": {
            "benchmark": "vilp",
            "probe": f"vilp_{form}",
            "vilp_answer": number,
            "instance": f"{form}-{position}",
            "scene_id": f"{position}-{number}",
        },
    }
