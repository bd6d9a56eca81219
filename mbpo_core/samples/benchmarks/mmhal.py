"""MMHal-Bench: 96 free questions of 8 types, whose answers a judge rates from 0 to 6.

Layout: `response_template.json`, an array of

    {"question_type": "attribute", "question_topic": "...", "image_id": "...", "image_src": "https://.../1_o.jpg",
     "image_content": ["Fire hydrant", ...], "question": "...", "gt_answer": "...", "model_answer": ""}

and the pictures in a folder `images`, named as at the end of image_src (or image_id). Pictures are never downloaded.
A response file is the same array with model_answer filled in; see `mbpo_core.samples.benchmarks.responses`.

Source: LLaVA-RLHF arXiv:2309.14525, dataset Shengcao1006/MMHal-Bench.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mbpo_core.samples.benchmarks.reading import (
    Benchmark,
    Item,
    Pictures,
    find_file,
    listed,
    make_rows,
    read_json,
    require_keys,
    text,
    texts,
)

TEMPLATE = "response_template.json"
CARRIED = ("question_type", "question_topic", "image_id", "image_src", "image_content")
"""What a response file repeats of the template, besides question and gt_answer."""


def read(path: Path, root: Path) -> Benchmark:
    """All questions of the template.

    Raises:
        DataError: the template is missing or has another layout, or no picture is there.
    """
    template = find_file(path, (TEMPLATE,), "MMHal-Bench")
    items = read_template(template)
    pictures = Pictures(root, ("images", "", "test_data"))

    def make(position: int, item: Item) -> Iterator[Item]:
        names = [text(item, key).rpartition("/")[2] for key in ("image_src", "image_id") if item.get(key)]
        candidates = [name if "." in name else f"{name}.jpg" for name in names]
        found = pictures.find(*candidates) if candidates else None
        yield {
            "id": f"mmhal-{position}",
            "image": found,
            "question": text(item, "question"),
            "answer": text(item, "gt_answer"),
            "kind": "open",
            "meta": {key: item.get(key) for key in CARRIED}
            | {
                "benchmark": "mmhal",
                "probe": "mmhal",
                "scene_id": str(found),
                "question_type": text(item, "question_type"),
                "image_content": texts(item, "image_content"),
            },
        }

    rows = make_rows(items, make)
    pictures.require_any()
    return listed(template.parent, [template], rows)


def read_template(path: Path) -> list[Item]:
    """The template's items.

    Raises:
        DataError: it is missing or has another layout.
    """
    items: list[Item] = read_json(path, list, "MMHal-Bench's questions")
    require_keys(items, ("question_type", "image_content", "question", "gt_answer"), path)
    return items
