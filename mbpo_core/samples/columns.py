"""Which input column serves what: the mapping, what is wrong with it, and what may have been meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples.normalise import META, RawRow, readable
from mbpo_core.samples.paths import image_values, is_missing

PEEK = 100  # rows whose cells tell what a column holds

_USUAL = {
    "image_column": ("image", "images", "image_path", "img", "picture", "image_file", "filename", "file_name"),
    "conversation_column": ("conversations", "conversation", "messages"),
    "question_column": ("question", "prompt", "query", "text", "instruction", "q"),
    "answer_column": ("answer", "answers", "chosen", "label", "response", "output", "gt_answer", "a"),
    "rejected_column": ("rejected", "rejected_response"),
    "choices_column": ("choices", "options"),
    "split_column": ("split",),
    "id_column": ("id", "sample_id", "question_id", "idx", "pid"),
    "kind_column": ("kind",),
}
"""What published data calls its columns, the commonest first."""
_NOT_OPTIONAL = {"image_column", "question_column", "answer_column", "conversation_column", "json_column"}
_ASKS = {"question", "prompt", "query"}


class RawReader(Protocol):
    """An input of known columns and length."""

    columns: list[str]
    count: int

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """All rows in order with the given cells, streamed: memory does not grow with their number."""


class Unfolded:
    """A reader whose column of JSON objects (RLHF-V's `text`) stands beside it as columns, one a key."""

    def __init__(self, reader: RawReader, column: str) -> None:
        self._reader, self._column = reader, column
        self.count = reader.count
        keys: dict[str, None] = {}
        for row in _first(reader, [column]):
            value, _ = _opened(row.cells[column], column)
            keys |= dict.fromkeys(value)
        self.columns = [*reader.columns, *(key for key in keys if key not in reader.columns)]

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """See `RawReader`; a cell that is no JSON object is the row's problem."""
        own = [name for name in columns if name in self._reader.columns]
        inner = [name for name in columns if name not in own]
        for row in self._reader.rows(list(dict.fromkeys([*own, self._column]))):
            value, problem = _opened(row.cells.get(self._column), self._column)
            cells = {name: row.cells.get(name) for name in own} | {name: value.get(name) for name in inner}
            yield RawRow(row.index, cells, row.problem or problem)


def mapped_columns(config: SamplesConfig) -> dict[str, str]:
    """Setting -> input column, of the columns that the settings ask for."""
    wanted = {"image_column": config.image_column}
    if config.conversation_column:
        wanted["conversation_column"] = config.conversation_column
    else:
        wanted |= {"question_column": config.question_column, "answer_column": config.answer_column}
    for name in SamplesConfig.model_fields:
        if name.endswith("_column") and name not in _NOT_OPTIONAL and (column := getattr(config, name)):
            wanted[name] = column
    return wanted


def columns_to_read(config: SamplesConfig, available: Sequence[str]) -> list[str]:
    """The mapped columns, and `meta` where the input has one."""
    wanted = list(dict.fromkeys(mapped_columns(config).values()))
    return [*wanted, META] if META in available and META not in wanted else wanted


def missing_columns(config: SamplesConfig, available: Sequence[str]) -> dict[str, str]:
    """Setting -> column, of the mapped columns that the input does not have."""
    return {setting: column for setting, column in mapped_columns(config).items() if column not in available}


def suggestions(config: SamplesConfig, available: Sequence[str]) -> dict[str, str]:
    """Setting -> column of the input: for a missing column the likeliest one, and optional ones that seem to be there.

    A missing column is looked for among the usual names first, then among similar ones. An input that has
    conversations, but neither question nor answer, is suggested to be read by them.
    """
    mapping, missing = mapped_columns(config), missing_columns(config, available)
    found: dict[str, str] = {}
    talk = next((name for name in _USUAL["conversation_column"] if name in available), "")
    if talk and {"question_column", "answer_column"} <= missing.keys():
        found["conversation_column"] = talk
        missing = {name: column for name, column in missing.items() if name == "image_column"}
    free = [name for name in available if name not in mapping.values() and name != META]
    for setting, column in missing.items():
        usual = next((name for name in _USUAL.get(setting, ()) if name in free), "")
        if close := usual or nearest(column, free or available):
            found[setting] = close
            free = [name for name in free if name != close]
    for setting in ("rejected_column", "choices_column", "split_column", "id_column"):
        usual = next((name for name in _USUAL[setting] if name in free), "")
        if usual and not getattr(config, setting) and setting not in found:
            found[setting] = usual
    return found


def likely_json_column(reader: RawReader) -> str:
    """The column whose first cell is the JSON text of an object with a question in it; empty where there is none."""
    for row in islice(reader.rows(reader.columns), 1):
        for name, cell in row.cells.items():
            if isinstance(cell, str) and cell.startswith("{") and set(_opened(cell, name)[0]) & _ASKS:
                return name
    return ""


def nearest(column: str, available: Sequence[str]) -> str:
    """The name that is most like a column's; empty where none is."""
    lower = {name.lower(): name for name in available}
    close = difflib.get_close_matches(column.lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else ""


def check_columns(config: SamplesConfig, available: Sequence[str]) -> None:
    """Refuse a mapping to columns that are not there.

    Raises:
        DataError: names the columns there are and the closest one.
    """
    for setting, column in missing_columns(config, available).items():
        close = nearest(column, available)
        hint = f"; the closest is {close!r}" if close else ""
        meant = close or suggestions(config, available).get(setting, "")
        raise DataError(
            f"the input has no column {column!r}{hint}",
            where=f"samples.{setting}, {config.path}",
            expected=f"one of {', '.join(available)}",
            remedy=f"Set samples.{setting}={meant or '<column>'}.",
        )


def check_cells(config: SamplesConfig, reader: RawReader) -> None:
    """Refuse a column that holds nothing its setting can read, by the first rows' cells; single bad cells are dropped.

    Raises:
        DataError: names column, setting, what it holds and what was expected.
    """
    mapping = mapped_columns(config)
    seen: dict[str, Any] = {}
    readable: set[str] = set()
    for row in _first(reader, list(dict.fromkeys(mapping.values()))):
        for setting, column in mapping.items():
            cell = row.cells.get(column)
            if setting in readable or row.problem or is_missing(cell):
                continue
            seen.setdefault(setting, cell)
            if _fits(setting, cell):
                readable.add(setting)
    for setting in seen.keys() - readable:
        raise DataError(
            f"column {mapping[setting]!r} cannot be read: it holds {told_cell(seen[setting])}",
            where=f"samples.{setting}, {config.path}",
            expected=_EXPECTED.get(setting, "texts or numbers"),
            remedy="Name another column; mbpo samples inspect shows what each one holds.",
        )


_EXPECTED = {
    "image_column": "encoded bytes, an HF image ({bytes, path}), a path, or a list of these",
    "conversation_column": "a list of turns, or the JSON text of one",
    "choices_column": "a list of texts, or the JSON text of one",
}


def _fits(setting: str, cell: Any) -> bool:
    if setting == "image_column":
        return any(_is_image(value) for value in image_values(cell))
    if setting == "conversation_column":
        return isinstance(cell, list | tuple | str)
    if setting == "choices_column":
        return isinstance(cell, list | tuple | dict | str)
    if setting in ("id_column", "kind_column", "split_column"):
        return isinstance(cell, str | int | float)
    return isinstance(cell, str | int | float | list | tuple | dict)


def _is_image(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("bytes") or value.get("path"))
    return isinstance(value, str | bytes | bytearray | memoryview) or hasattr(value, "getexif")


def told_cell(cell: Any) -> str:
    """What a cell holds, as "list of int, e.g. [1, 2]"; bytes are counted."""
    items = f" of {type(cell[0]).__name__}" if isinstance(cell, list | tuple) and cell else ""
    return f"{type(cell).__name__}{items}, e.g. {readable(cell)!r:.60}"


def _opened(value: Any, column: str) -> tuple[dict[str, Any], str]:
    """The object of a cell, or why there is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError) as error:
            return {}, f"{column} is no JSON: {error}"[:200]
    if not isinstance(value, dict):
        return {}, f"{column} is a {type(value).__name__}, expected a JSON object"
    return value, ""


def _first(reader: RawReader, columns: Sequence[str]) -> Iterator[RawRow]:
    return islice(reader.rows(columns), PEEK)
