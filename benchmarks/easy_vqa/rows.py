"""The rows of easy-VQA, each with what it asks about, as its own words say it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from mbpo_core.errors import DataError

COLORS: tuple[str, ...] = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES: tuple[str, ...] = ("circle", "rectangle", "triangle")
PARTS: tuple[str, ...] = ("train", "test")

Topic = Literal["has_color", "has_shape", "color", "shape"]


@dataclass(frozen=True)
class Row:
    """One question of the package.

    Attributes:
        name: part and number in its file, e.g. "test/17"; unique.
        image: part and id of the picture, e.g. "test/3".
        question, answer: as the package has them.
    """

    name: str
    image: str
    question: str
    answer: str

    @cached_property
    def topic(self) -> Topic:
        """What is asked: is the colour there, is the shape there, which colour, which shape."""
        if self.answer in ("yes", "no"):
            return "has_color" if self.subject in COLORS else "has_shape"
        return "color" if self.answer in COLORS else "shape"

    @cached_property
    def subject(self) -> str:
        """The colour or shape that the question names; empty where it names none."""
        words = self.question.rstrip("?").split()
        return next((word for word in words if word in COLORS or word in SHAPES), "")

    @property
    def negated(self) -> bool:
        """Asks whether it is absent: "is there not a red shape?", "is no circle present?"."""
        return not {"not", "no"}.isdisjoint(self.question.split())

    @property
    def present(self) -> bool:
        """Of a yes/no question: the picture shows the subject, whichever way round the question asks."""
        return (self.answer == "yes") != self.negated

    def answer_if(self, present: bool) -> str:
        """Of a yes/no question: what it would answer if the subject were there, or were not."""
        return "yes" if present != self.negated else "no"


def data_folder() -> Path:
    """Where the package keeps its files.

    Raises:
        DataError: it is not installed.
    """
    spec = find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise DataError("easy-VQA is not installed", remedy="pip install -c constraints.txt easy-vqa")
    return Path(spec.origin).parent / "data"


def read_rows(folder: Path) -> list[Row]:
    """All rows, train first, in the package's order.

    Args:
        folder: holds `train/questions.json` and `test/questions.json`, lists of [question, answer, image id].

    Raises:
        DataError: a file is missing, or a row is no question of easy-VQA.
    """
    rows: list[Row] = []
    for part in PARTS:
        path = folder / part / "questions.json"
        if not path.is_file():
            raise DataError("a file of easy-VQA is missing", where=str(path), remedy="Install easy-vqa again.")
        for index, (question, answer, image) in enumerate(json.loads(path.read_text(encoding="utf-8"))):
            row = Row(f"{part}/{index}", f"{part}/{image}", question, answer)
            if answer not in (*COLORS, *SHAPES, "yes", "no") or (answer in ("yes", "no") and not row.subject):
                raise DataError(f"{question!r} with {answer!r} is no row of easy-VQA", where=f"{path}, row {index}")
            rows.append(row)
    return rows


def picture_file(folder: Path, image: str) -> Path:
    """The file of a picture named "part/id"."""
    part, _, number = image.partition("/")
    return folder / part / "images" / f"{number}.png"


def truths(rows: Iterable[Row], topic: Literal["color", "shape"]) -> dict[str, str]:
    """The colour, or the shape, of each picture as far as the rows tell it, by image.

    A row tells it by its answer ("what color is the circle?": red), by its words (the same: circle), or by saying
    that it is there.
    """
    names: Sequence[str] = COLORS if topic == "color" else SHAPES
    found: dict[str, str] = {}
    for row in rows:
        if row.answer in names:
            found[row.image] = row.answer
        elif row.subject in names and (row.answer not in ("yes", "no") or row.present):
            found[row.image] = row.subject
    return found
