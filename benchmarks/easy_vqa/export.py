"""Selected rows as a Parquet file that `mbpo samples` imports, columns mapped by the run config."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.easy_vqa.prior import conflicts, prior_answer
from benchmarks.easy_vqa.rows import picture_file
from benchmarks.easy_vqa.selection import Selected

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "question": pa.string(),
        "answer": pa.string(),
        "split": pa.string(),
        "meta": pa.string(),
    }
)


def write_parquet(target: Path, selected: Iterable[Selected], folder: Path) -> int:
    """Write the rows with their pictures' bytes; returns how many.

    The keys of `meta` are those of docs/data.md; `scene_id` is the picture.

    Args:
        target: file to write; its folder is made if missing.
        selected: rows, in order.
        folder: the package's data.
    """
    rows = [
        {
            "id": f"{one.split}/{one.probe}/{one.row.name}",
            "image": {"bytes": picture_file(folder, one.row.image).read_bytes(), "path": f"{one.row.image}.png"},
            "question": one.row.question,
            "answer": one.row.answer,
            "split": one.split,
            "meta": json.dumps(
                {
                    "probe": one.probe,
                    "topic": one.row.topic,
                    "subject": one.row.subject,
                    "prior_answer": prior_answer(one.row),
                    "conflict": conflicts(one.row),
                    "scene_id": one.row.image,
                }
            ),
        }
        for one in selected
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), target, compression="zstd")
    return len(rows)
