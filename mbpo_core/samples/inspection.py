"""What an import would make of its input, by a look at the first rows: columns, kinds, pictures, problems."""

from __future__ import annotations

import io
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

from pydantic import BaseModel, Field

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.records import Dropped, Sample
from mbpo_core.samples.benchmarks import is_benchmark, open_benchmark, own_columns
from mbpo_core.samples.columns import (
    RawReader,
    Unfolded,
    columns_to_read,
    likely_json_column,
    mapped_columns,
    missing_columns,
    suggestions,
    told_cell,
)
from mbpo_core.samples.inputs import fetched_images
from mbpo_core.samples.normalise import Normaliser
from mbpo_core.samples.paths import image_root, is_missing
from mbpo_core.samples.readers import open_input

SHOWN = 10
_LONGEST = 2000  # characters of a text that is shown


class Column(BaseModel):
    """A column of the input."""

    name: str
    holds: str = Field(description="Type and value of the first cell that is not empty.")
    serves: list[str] = Field(description="Settings that name it.")
    suggested: str = Field(default="", description="Setting that it may be meant for.")


class Shown(BaseModel):
    """One of the first rows, as a sample or with what is wrong with it."""

    row: int
    sample_id: str
    question: str = ""
    answer: str = ""
    rejected: str | None = None
    kind: str = ""
    answer_form: str = ""
    split: str = ""
    pictures: list[str] = Field(default_factory=list, description='Width and height, as "640x480".')
    problem: str = ""


class Problem(BaseModel):
    """A reason why rows cannot be used."""

    reason: str
    rows: int
    example: str


class Spread(BaseModel):
    """Of a number over all pictures, pixels."""

    least: int
    median: float
    most: int


class Inspection(BaseModel):
    """What was found."""

    source: str
    path: str
    rows: int = Field(description="Rows of the input.")
    looked: int = Field(description="Rows that were looked at, from the first one on.")
    usable: int = 0
    columns: list[Column]
    mapping: dict[str, str] = Field(description="Setting -> column.")
    missing: dict[str, str] = Field(description="The same of columns that the input does not have.")
    suggested: dict[str, str] = Field(description="Setting -> column that may be meant; tried where one is missing.")
    shown: list[Shown] = Field(default_factory=list)
    kinds: dict[str, int] = Field(default_factory=dict)
    answer_forms: dict[str, int] = Field(default_factory=dict)
    splits: dict[str, int] = Field(default_factory=dict)
    pictures: dict[int, int] = Field(default_factory=dict, description="Rows by their number of pictures.")
    formats: dict[str, int] = Field(default_factory=dict, description="Pictures by the format they came in.")
    widths: Spread | None = None
    heights: Spread | None = None
    problems: list[Problem] = Field(default_factory=list)

    @property
    def importable(self) -> bool:
        """The settings as they are make at least one sample."""
        return self.usable > 0 and not self.missing


def inspect_input(config: SamplesConfig, looked: int = 1000) -> Inspection:
    """Look at the first rows of the configured input, as the import would.

    Where a mapped column is missing, and all that are missing have a likely other name, the rows are read by those
    names, so that what would come of the suggestion can be seen. Nothing is written, except that pictures named by
    URL are fetched where samples.url_folder allows it.

    Args:
        config: as for the import; of demo scenes there is nothing to see.
        looked: rows to look at; 0 looks at all.

    Raises:
        DataError: the input is missing, empty, or of another format.
    """
    if config.source == "demo":
        raise DataError(
            "the demo's scenes are made by the import; there is no input to look at",
            where="samples.source",
            remedy="Name a file or folder, or a run config with a source of your own.",
        )
    reader: RawReader = open_benchmark(config) if is_benchmark(config) else open_input(config)
    config = own_columns(config) if is_benchmark(config) else config
    limit = min([reader.count, *(number for number in (looked, config.limit) if number)])
    missing, meant = missing_columns(config, reader.columns), {}
    if missing and not config.json_column and (folded := likely_json_column(reader)):
        reader, meant = Unfolded(reader, folded), {"json_column": folded}
    meant |= suggestions(config, reader.columns)
    result = Inspection(
        source=config.source,
        path=config.path,
        rows=reader.count,
        looked=limit,
        columns=_columns(reader, mapped_columns(config), meant),
        mapping=mapped_columns(config),
        missing=missing,
        suggested=meant,
    )
    tried = config.model_copy(update=meant) if missing else config
    return result if missing_columns(tried, reader.columns) else _with_rows(result, tried, reader, limit)


def _with_rows(result: Inspection, config: SamplesConfig, reader: RawReader, limit: int) -> Inspection:
    """The result with what the rows become under a mapping whose columns are all there."""
    if config.url_folder:
        fetched_images(config.model_copy(update={"limit": limit}))
    normaliser = Normaliser(config, image_root(config))
    seen: set[str] = set()
    problems: dict[str, Problem] = {}
    counts: dict[str, Counter[Any]] = {name: Counter() for name in ("kinds", "answer_forms", "splits", "pictures")}
    sizes: list[tuple[int, int]] = []
    shown: list[Shown] = []
    usable = 0
    for raw in islice(reader.rows(columns_to_read(config, reader.columns)), limit):
        made = normaliser.normalise(raw)
        if made.sample_id in seen:
            detail = f"an earlier row has the id {made.sample_id!r}"
            made = normaliser.drop(made.sample_id, raw, "duplicate_id", detail)
        seen.add(made.sample_id)
        if isinstance(made, Dropped):
            known = problems.setdefault(made.reason, Problem(reason=made.reason, rows=0, example=made.detail))
            known.rows += 1
        else:
            usable += 1
            own = [_size(image.bytes or b"") for image in made.images]
            sizes += own
            for name, value in zip(counts, (made.kind, made.answer_form, made.split, len(own)), strict=True):
                counts[name][value] += 1
        if len(shown) < SHOWN:
            shown.append(_shown(raw.index, made))
    told = {name: dict(counter.most_common()) for name, counter in counts.items()}
    return result.model_copy(
        update={
            **told,
            "usable": usable,
            "shown": shown,
            "formats": dict(normaliser.came_as.most_common()),
            "widths": _spread([width for width, _ in sizes]),
            "heights": _spread([height for _, height in sizes]),
            "problems": sorted(problems.values(), key=lambda problem: -problem.rows),
        }
    )


def _columns(reader: RawReader, mapping: dict[str, str], meant: dict[str, str]) -> list[Column]:
    try:
        first = _first_cells(reader, reader.columns)
    except DataError:  # of a column that nothing may want; told one by one
        first = {}
        for name in reader.columns:
            try:
                first |= _first_cells(reader, [name])
            except DataError as error:
                first[name] = error.what
    return [
        Column(
            name=name,
            holds=first.get(name, "nothing in the first rows"),
            serves=[setting for setting, column in mapping.items() if column == name],
            suggested=next((setting for setting, column in meant.items() if column == name), ""),
        )
        for name in reader.columns
    ]


def _first_cells(reader: RawReader, columns: Sequence[str]) -> dict[str, str]:
    """What each column's first cell holds, of those that are not empty throughout the first rows."""
    first: dict[str, str] = {}
    for row in islice(reader.rows(columns), SHOWN):
        for name, cell in row.cells.items():
            if name not in first and not is_missing(cell):
                first[name] = told_cell(cell)
    return first


def _shown(index: int, made: Sample | Dropped) -> Shown:
    if isinstance(made, Dropped):
        return Shown(row=index, sample_id=made.sample_id, problem=f"{made.reason}: {made.detail}"[:_LONGEST])
    return Shown(
        row=index,
        sample_id=made.sample_id,
        question=made.question[:_LONGEST],
        answer=made.answer[:_LONGEST],
        rejected=made.rejected[:_LONGEST] if made.rejected else None,
        kind=made.kind,
        answer_form=made.answer_form,
        split=made.split,
        pictures=["{}x{}".format(*_size(image.bytes or b"")) for image in made.images],
    )


def _size(data: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def _spread(values: Sequence[int]) -> Spread | None:
    return Spread(least=min(values), median=statistics.median(values), most=max(values)) if values else None
