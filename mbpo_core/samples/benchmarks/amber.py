"""AMBER: a description of each of 1,004 pictures, and 14,216 yes/no questions about what is in them.

Layout, as in the repository: `data/query/query_all.json` (or `query_generative.json`, `query_discriminative.json`,
`query_discriminative-existence.json`, ...), an array of

    {"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."}

and beside that folder `data/annotations.json`, an array of

    {"id": 1, "type": "generative", "truth": ["sky", ...], "hallu": ["cloud", ...]}
    {"id": 1005, "type": "discriminative-attribute-state", "truth": "yes"}

`data/relation.json` (object -> words that stand for it) and `data/safe_words.txt` (a word a line, never counted).
The pictures come apart, AMBER_1.jpg to AMBER_1004.jpg.

Source: AMBER arXiv:2311.07397, repository junyangwang0410/AMBER.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mbpo_core.errors import DataError
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
from mbpo_core.samples.problems import Unusable

QUERIES = ("data/query/query_all.json", "query/query_all.json", "query_all.json")
BESIDE = ("annotations.json", "relation.json", "safe_words.txt")
_DISCRIMINATIVE = "discriminative-"


def read(path: Path, root: Path) -> Benchmark:
    """The questions of query_all.json, or of the query file that was named.

    Raises:
        DataError: a file is missing or has another layout, or no picture is there.
    """
    queries = find_file(path, QUERIES, "AMBER")
    folder = next((place for place in queries.parents[:2] if (place / BESIDE[0]).is_file()), queries.parent)
    files = [folder / name for name in BESIDE]
    for file in files:
        if not file.is_file():
            raise DataError(
                f"{file.name} is missing",
                where=str(folder),
                expected=f"{', '.join(BESIDE)} beside the folder query",
                remedy="Copy the repository's folder data as a whole.",
            )
    items = read_json(queries, list, "AMBER's questions")
    require_keys(items, ("id", "image", "query"), queries)
    annotated = read_json(files[0], list, "AMBER's annotations")
    require_keys(annotated, ("id", "type", "truth"), files[0])
    annotations = {one["id"]: one for one in annotated if isinstance(one, dict) and "id" in one}
    words = _Words(read_json(files[1], dict, "AMBER's words"), files[2].read_text(encoding="utf-8").splitlines())
    pictures = Pictures(root, ("", "image", "images"))

    def make(position: int, item: Item) -> Iterator[Item]:
        name = text(item, "image")
        yield {"image": pictures.find(name), "question": text(item, "query")} | _answer(
            item.get("id"), name, annotations, words
        )

    rows = make_rows(items, make)
    pictures.require_any()
    return listed(folder, [queries, *files], rows)


class _Words:
    """The benchmark's vocabulary: which words stand for which objects, and which are never counted."""

    def __init__(self, relation: Mapping[str, list[str]], safe: list[str]) -> None:
        self._relation, self.safe = relation, [word.strip() for word in safe if word.strip()]
        self.all = sorted({*relation, *(word for words in relation.values() for word in words)})

    def of(self, objects: list[str]) -> dict[str, list[str]]:
        """The words that stand for each object, besides its own name."""
        return {name: list(self._relation.get(name, ())) for name in dict.fromkeys(objects)}


def _answer(number: Any, image: str, annotations: Mapping[Any, Item], words: _Words) -> Item:
    """Id, answer, kind and meta of a question, from its annotation."""
    if number not in annotations:
        raise Unusable("missing_value", f"annotations.json has no id {number!r:.40}")
    annotation = annotations[number]
    kind = text(annotation, "type")
    meta: Item = {"scene_id": image, "amber_id": number}
    if kind == "generative":
        truth, hallucination = texts(annotation, "truth"), texts(annotation, "hallu")
        meta |= {
            "benchmark": "amber_generative",
            "probe": "amber_generative",
            "truth": truth,
            "hallucination": hallucination,
            "synonyms": words.of([*truth, *hallucination]),
            "vocabulary": words.all,
            "safe_words": words.safe,
        }
        return {"id": f"amber-{number}", "answer": ", ".join(truth), "kind": "open", "meta": meta}
    dimension = kind.removeprefix(_DISCRIMINATIVE)
    meta |= {"benchmark": "amber_discriminative", "probe": f"amber_{_probe(kind)}", "dimension": dimension}
    return {"id": f"amber-{number}", "answer": annotation.get("truth"), "kind": "yes_no", "meta": meta}


def _probe(kind: str) -> str:
    """Existence, attribute or relation, as the repository's script sorts the types."""
    if kind == "discriminative-hallucination":
        return "existence"
    if kind.startswith("discriminative-attribute-"):
        return "attribute"
    if kind in ("discriminative-relation", "relation"):
        return "relation"
    raise Unusable("missing_value", f"type {kind!r:.60} is none of AMBER's")
