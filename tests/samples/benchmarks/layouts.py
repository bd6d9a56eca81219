"""Tiny folders in the published layout of each benchmark, with pictures of a few pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.samples.helpers import encoded, picture, write_lines

AMBER_RELATION = {
    "sky": [],
    "forest": ["tree", "leave"],
    "person": ["people", "man"],
    "tree": ["forest", "leave"],
    "cloud": [],
    "dog": [],
}
VLIND_KEYS = {
    "concept": "diet",
    "context_id": 3,
    "context": "Pandas eat meat.",
    "factual_context": "Pandas eat bamboo.",
    "true_statement": "Pandas are carnivores.",
    "false_statement": "Pandas are herbivores.",
    "existent_noun": "a panda",
    "non-existent_noun": "a zebra",
    "best_img_id": "7",
}


def put_picture(path: Path, color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(color, size), "JPEG" if path.suffix == ".jpg" else "PNG"))
    return path


def put_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")
    return path


def pope_line(number: int, image: str, thing: str, label: str) -> dict[str, Any]:
    article = "an" if thing[0] in "aeiou" else "a"
    text = f"Is there {article} {thing} in the {'imange' if article == 'an' else 'image'}?"  # sic, as published
    return {"question_id": number, "image": image, "text": text, "label": label}


def make_pope(folder: Path) -> tuple[Path, Path]:
    """(data, images): two questions a set, about two pictures."""
    data, images = folder / "POPE", folder / "val2014"
    (data / "output" / "coco").mkdir(parents=True)
    names = ["COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"]
    for index, name in enumerate(names):
        put_picture(images / name, (200, 30 + index, 30))
    asked = {"random": ("dog", "dining table"), "popular": ("dog", "car"), "adversarial": ("dog", "umbrella")}
    for subset, (there, absent) in asked.items():
        lines = [pope_line(1, names[0], there, "yes"), pope_line(2, names[1], absent, "no")]
        write_lines(data / "output" / "coco" / f"coco_pope_{subset}.json", lines)
    return data, images


def make_amber(folder: Path) -> Path:
    """A checkout with its pictures in the folder image: two descriptions, four yes/no questions."""
    root = folder / "AMBER"
    for number in (1, 2):
        put_picture(root / "image" / f"AMBER_{number}.jpg", (200, 30, 30 * number))
    generative = [{"id": n, "image": f"AMBER_{n}.jpg", "query": "Describe this image."} for n in (1, 2)]
    asked = ["Is the sky sunny in this image?", "Is there a dog in this image?", "Are there two people in this image?"]
    asked.append("Is there direct contact between the person and dog?")
    discriminative = [
        {"id": 1005 + n, "image": f"AMBER_{1 + n // 2}.jpg", "query": query} for n, query in enumerate(asked)
    ]
    put_json(root / "data" / "query" / "query_all.json", generative + discriminative)
    put_json(root / "data" / "query" / "query_generative.json", generative)
    put_json(root / "data" / "query" / "query_discriminative.json", discriminative)
    put_json(
        root / "data" / "annotations.json",
        [
            {"id": 1, "type": "generative", "truth": ["sky", "forest", "person"], "hallu": ["cloud", "dog"]},
            {"id": 2, "type": "generative", "truth": ["dog"], "hallu": ["tree"]},
            {"id": 1005, "type": "discriminative-attribute-state", "truth": "yes"},
            {"id": 1006, "type": "discriminative-hallucination", "truth": "no"},
            {"id": 1007, "type": "discriminative-attribute-number", "truth": "no"},
            {"id": 1008, "type": "relation", "truth": "no"},
        ],
    )
    put_json(root / "data" / "relation.json", AMBER_RELATION)
    (root / "data" / "safe_words.txt").write_text("orange\nsnack\nline", encoding="utf-8")
    return root


def make_mmhal(folder: Path) -> Path:
    """The template and its pictures: three questions of two types."""
    root = folder / "MMHal-Bench"
    kinds = ["attribute", "adversarial", "attribute"]
    items = [
        {
            "question_type": kind,
            "question_topic": "outdoor",
            "image_id": f"{index:016x}",
            "image_src": f"https://farm4.staticflickr.com/3/{index}_b.jpg",
            "image_content": ["Fire hydrant", "Person"],
            "question": f"What color is the fire hydrant cap number {index}?",
            "gt_answer": "The cap of the fire hydrant is yellow.",
            "model_answer": "",
        }
        for index, kind in enumerate(kinds)
    ]
    for index in range(2):
        put_picture(root / "images" / f"{index}_b.jpg", (30, 200, 30 * index))
    put_picture(root / "images" / f"{2:016x}.jpg", (30, 200, 200))  # named by its id
    put_json(root / "response_template.json", items)
    return root


def make_vilp(folder: Path) -> Path:
    """The Parquet file: two questions about three pictures each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (question, answers) in enumerate(
        [
            ("A cat has four legs. How many legs does the animal have?", ("4", "2", "8")),
            ("A soccer ball is round. What shape is the ball in the image?", ("Sphere", "Cube", "Cone")),
        ]
    ):
        row: dict[str, Any] = {"question": question}
        for number, answer in enumerate(answers, 1):
            row |= {f"image{number}": encoded(picture((40 * number, 90, 40 * index))), f"answer{number}": answer}
        rows.append(row)
    path = folder / "ViLP.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def make_vlind(folder: Path) -> Path:
    """One instance with two good pictures of three, one without any."""
    root = folder / "VLind-Bench Dataset"
    items = [
        VLIND_KEYS | {"aggregated_human_label_good_images": {"0": 1, "4": 2, "7": 3}},
        VLIND_KEYS | {"context_id": 4, "aggregated_human_label_good_images": {"0": 1}},
    ]
    put_json(root / "data.json", items)
    for name in ("0", "4", "7"):
        put_picture(root / "images" / "counterfactual" / "diet" / "3_Pandas eat meat." / f"{name}.jpg")
    put_picture(root / "images" / "factual" / "diet" / "3_Pandas eat bamboo." / "0.jpg", (30, 30, 200))
    return root
