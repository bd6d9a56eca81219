"""POPE: is the object in the picture? Three sets of 3,000 questions about 500 pictures of COCO's val2014.

Layout: `coco_pope_random.json`, `coco_pope_popular.json`, `coco_pope_adversarial.json` (in the repository under
`output/coco/`), JSON Lines of

    {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?",
     "label": "yes"}

with the pictures in a folder of their own. Files of the same form about other pictures (A-OKVQA, GQA) are read alike.

Source: POPE arXiv:2305.10355, repositories RUCAIBox/POPE and AoiDragon/POPE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mbpo_core.errors import DataError
from mbpo_core.samples.benchmarks.reading import Benchmark, Item, Pictures, listed
from mbpo_core.samples.json_rows import JsonReader
from mbpo_core.samples.normalise import RawRow

SETS = ("random", "popular", "adversarial")
FOLDERS = ("", "output/coco", "coco")  # of a checkout of the repository
KEYS = ("question_id", "image", "text", "label")
_OBJECT = re.compile(r"Is there (?:an? )?(.+?) in the (?:image|imange)\?", re.IGNORECASE)  # sic, in some rows


def read(path: Path, root: Path) -> Benchmark:
    """All sets that lie there.

    Raises:
        DataError: no set lies there, a file has another layout, or no picture is there.
    """
    files = [path] if path.is_file() else _files(path)
    pictures, rows = Pictures(root, ("", "val2014")), list[RawRow]()
    for file in files:
        for row in _rows(file, pictures):
            rows.append(RawRow(len(rows), row.cells, row.problem))
    pictures.require_any()
    return listed(files[0].parent, files, rows)


def _files(folder: Path) -> list[Path]:
    for place in FOLDERS:
        if files := [file for name in SETS for file in sorted((folder / place).glob(f"*_{name}.json"))]:
            return files
    raise DataError(
        "the folder holds no POPE files",
        where=str(folder),
        expected=f"coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json, there or in {FOLDERS[1]}",
        remedy="Name the folder that they lie in, or one of the files (docs/benchmarks.md shows the layouts).",
    )


def _rows(file: Path, pictures: Pictures) -> Iterator[RawRow]:
    subset = file.stem.rpartition("_")[2]
    reader = JsonReader(file)
    missing = [key for key in KEYS if key not in reader.columns]
    if missing or subset not in SETS:
        raise DataError(
            f"the rows have no {', '.join(missing)}" if missing else f"the name says none of {', '.join(SETS)}",
            where=str(file),
            expected=f"a file such as coco_pope_random.json, each line with {', '.join(KEYS)}",
            remedy="Take the file as it was published.",
        )
    for row in reader.rows(KEYS):
        if row.problem:
            yield RawRow(row.index, {}, f"{file.name}: {row.problem}")
        else:
            sample_id = f"{file.stem}-{row.cells['question_id']}"
            yield RawRow(row.index, _cells(dict(row.cells), sample_id, subset, pictures))


def _cells(item: Item, sample_id: str, subset: str, pictures: Pictures) -> Item:
    name = item["image"]
    asked = _OBJECT.search(str(item["text"]))
    return {
        "id": sample_id,
        "image": pictures.find(name) if isinstance(name, str) and name else None,
        "question": item["text"],
        "answer": item["label"],
        "kind": "yes_no",
        "split": "eval",
        "meta": {
            "benchmark": "pope",
            "probe": f"existence_{subset}",
            "scene_id": str(name),
            "subject": asked[1] if asked else "",
        },
    }
