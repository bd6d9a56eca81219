"""Answers in the files that a benchmark's own scripts read: MMHal-Bench's judge, AMBER's scorer.

MMHal-Bench, for `eval_gpt4.py --response`: the template with model_answer filled in, in its order.
AMBER, for `inference.py --inference_data`: an array of {"id": 1, "response": "..."}; of a yes/no question "Yes" or
"No", because the script compares these words.

Sources: dataset Shengcao1006/MMHal-Bench; repository junyangwang0410/AMBER (README.md, inference.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mbpo_core.errors import DataError
from mbpo_core.samples.benchmarks.mmhal import TEMPLATE, read_template
from mbpo_core.samples.benchmarks.reading import find_file, read_json

WRITTEN = ("mmhal", "amber")
"""Benchmarks whose scripts read a response file."""


def responses_of(source: str, path: Path, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The array that a benchmark's script reads.

    Args:
        source: of WRITTEN.
        path: the benchmark's file or folder.
        rows: one policy's predictions, with sample_id, text, extracted and meta (JSON).
    """
    if source == "amber":
        return sorted((_amber_response(row) for row in rows), key=lambda response: int(response["id"]))
    answers = {row["sample_id"]: row["text"] for row in rows}
    items = read_template(find_file(path, (TEMPLATE,), "MMHal-Bench"))
    return [item | {"model_answer": answers.get(f"mmhal-{index}", "")} for index, item in enumerate(items)]


def read_judgements(path: Path, template: Path) -> list[dict[str, str]]:
    """A judge's file as `eval_gpt4.py --evaluation` writes it, and the type of each question.

    Args:
        path: an array of the judge's texts, or of the answers of the API that hold them
            (`choices[0].message.content`), in the template's order.
        template: MMHal-Bench's folder, or its template.

    Returns:
        {"question_type": ..., "judgement": the judge's text} a question.

    Raises:
        DataError: a file has another layout, or they do not belong together.
    """
    items = read_template(find_file(template, (TEMPLATE,), "MMHal-Bench"))
    given = read_json(path, list, "the judge's answers")
    if len(given) != len(items):
        raise DataError(
            f"{len(given)} judgements for {len(items)} questions",
            where=str(path),
            expected="one judgement a question, in the order of the template",
            remedy="Judge the whole response file, or name the template it was made of with --data.",
        )
    types = [str(item["question_type"]) for item in items]
    return [
        {"question_type": kind, "judgement": _judgement(one, index, path)}
        for index, (kind, one) in enumerate(zip(types, given, strict=True))
    ]


def _amber_response(row: Mapping[str, Any]) -> dict[str, Any]:
    read = row["extracted"] if row["extracted"] in ("yes", "no") else None
    return {"id": json.loads(row["meta"])["amber_id"], "response": read.capitalize() if read else row["text"]}


def _judgement(given: Any, index: int, path: Path) -> str:
    if isinstance(given, dict):
        try:
            given = given["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            given = None
    if not isinstance(given, str):
        raise DataError(
            f"judgement {index} is no text",
            where=str(path),
            expected='a text with "Rating: <0 to 6>", or an API answer with choices[0].message.content',
            remedy="Take the file that the judge's script wrote.",
        )
    return given
