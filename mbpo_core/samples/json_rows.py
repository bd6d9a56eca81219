"""JSON Lines, and one JSON array of objects, read row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from mbpo_core.errors import DataError
from mbpo_core.samples.normalise import RawRow

_PEEK = 100  # rows whose keys make up the columns
_CHUNK = 2**20  # characters of an array read at a time
_LONGEST = 2**26  # characters of one item of an array; a broken one is not looked for beyond
_HEAD = 2**16  # bytes that tell an array from lines
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte-order mark alone is blank, too


class JsonReader:
    """One JSON object a line, or one array of objects (as LLaVA's instruction files are); UTF-8.

    Blank lines do not count. A line or item that is no object is a row with a problem; an array that breaks off is
    an error, because nothing after it can be told apart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_array = _is_array(path)
        self.count = 0
        keys: dict[str, None] = {}
        for row in self._all():
            if self.count == 0 and row.problem:
                raise self._no_rows(row.problem)
            if self.count < _PEEK:
                keys |= dict.fromkeys(row.cells)
            self.count += 1
        self.columns = list(keys)

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """See `RawReader`."""
        for row in self._all():
            yield RawRow(row.index, {name: row.cells.get(name) for name in columns}, row.problem)

    def _all(self) -> Iterator[RawRow]:
        if self._is_array:
            yield from (_row(value, index, "item") for index, value in enumerate(array_items(self._path)))
            return
        with self._path.open("rb") as file:
            for index, line in enumerate(line for line in file if line.strip(_BLANK)):
                yield _parse(line, index)

    def _no_rows(self, problem: str) -> DataError:
        """A file that holds no objects at all is an error, not a dropped row."""
        return DataError(
            f"the first row is no JSON object: {problem}",
            where=str(self._path),
            expected='one JSON object a line, such as {"image": "1.png", "question": "...", "answer": "..."}, or an '
            "array of such objects",
            remedy="Check samples.path and samples.source.",
        )


def array_items(path: Path) -> Iterator[Any]:
    """The items of a file that is one JSON array; memory holds a stretch of it, never the whole.

    Raises:
        DataError: the array breaks off, is no valid JSON or UTF-8, or an item is longer than 64 million characters.
    """
    with path.open(encoding="utf-8-sig") as file:
        text = _Stretch(path, file)
        text.take("[")
        while text.next_sign() != "]":
            if text.items:
                text.take(",")
            yield text.value()
        text.take("]")
        if text.next_sign():
            raise text.broken("is followed by something else than the array's end")


class _Stretch:
    """The part of an array's text that is in memory, and how far it has been read."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._at = "", 0
        self.items = 0

    def next_sign(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            self._at = _end_of_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self, sign: str) -> None:
        """Pass over one character, which must be there."""
        found = self.next_sign()
        if found != sign:
            raise self.broken(f"has {found!r} behind it, expected {sign!r}" if found else "is the last: cut short")
        self._at += 1

    def value(self) -> Any:
        """The next item."""
        self.next_sign()
        while True:
            try:
                value, self._at = _DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._text) - self._at > _LONGEST or not self._read_on():
                    raise self.broken("is followed by no JSON, or the file is cut short") from error
            else:
                self.items += 1
                return value

    def broken(self, problem: str) -> DataError:
        """Nothing after the place can be told apart."""
        return DataError(
            f"the JSON array is broken: item {self.items} {problem}",
            where=str(self._path),
            expected="[{...}, {...}, ...]",
            remedy="Fetch or write the file anew.",
        )

    def _read_on(self) -> bool:
        """Read as much again as is left, so that a long item is tried a few times only; False at the end."""
        left = self._text[self._at :]
        try:
            read = self._file.read(max(_CHUNK, len(left)))
        except UnicodeDecodeError as error:
            raise self.broken(f"is followed by what is no UTF-8: {error}") from error
        self._text, self._at = left + read, 0
        return bool(read)


def _end_of_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _is_array(path: Path) -> bool:
    """The file begins with an array of objects; an array of anything else is a bad row of JSON Lines."""
    with path.open("rb") as file:
        head = file.read(_HEAD).lstrip(_BLANK)
    return head.startswith(b"[") and head[1:].lstrip(_BLANK)[:1] in (b"{", b"]", b"")


def _parse(line: bytes, index: int) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        return RawRow(index, {}, f"the line is no JSON: {error}"[:200])
    return _row(value, index, "line")


def _row(value: Any, index: int, name: str) -> RawRow:
    if not isinstance(value, dict):
        return RawRow(index, {}, f"the {name} is a JSON {type(value).__name__}, expected an object")
    return RawRow(index, value)
