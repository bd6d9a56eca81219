"""What the readers of benchmarks have in common: JSON files, pictures by name, rows in one form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbpo_core.errors import DataError
from mbpo_core.samples.normalise import RawRow
from mbpo_core.samples.paths import resolve_image
from mbpo_core.samples.problems import Unusable

Item = dict[str, Any]

COLUMNS: tuple[str, ...] = ("id", "image", "question", "answer", "kind", "choices", "split", "meta")
"""The cells of a benchmark's row, choices where there are some. Every row is of split eval."""


@dataclass
class Benchmark:
    """A benchmark as its files describe it.

    Attributes:
        folder: that all its files lie under.
        files: that were read; pictures named by them are not among them.
        count: rows.
        read: gives all rows in order, each time anew.
        columns: of the rows.
    """

    folder: Path
    files: Sequence[Path]
    count: int
    read: Callable[[], Iterator[RawRow]]
    columns: list[str] = field(default_factory=lambda: list(COLUMNS))

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """See `mbpo_core.samples.readers.RawReader`."""
        return self.read()

    def image_cells(self) -> Iterator[Any]:
        """The image cells that are paths."""
        return (cell for row in self.read() if isinstance(cell := row.cells.get("image"), str))


def listed(folder: Path, files: Sequence[Path], rows: Sequence[RawRow]) -> Benchmark:
    """A benchmark whose rows are in memory, which holds texts and paths but no pictures."""
    return Benchmark(folder, files, len(rows), lambda: iter(rows))


def make_rows(items: Iterable[Any], make: Callable[[int, Item], Iterable[Item]]) -> list[RawRow]:
    """Rows of a benchmark's items; an item of which none can be made gives one row that says why.

    Args:
        items: of the benchmark's file.
        make: the cells of each row of an item, given its position and itself. May raise Unusable.
    """
    rows: list[RawRow] = []
    for position, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise Unusable("missing_value", f"a JSON {type(item).__name__}, expected an object")
            made = [cells | {"split": "eval"} for cells in make(position, item)]
        except Unusable as problem:
            rows.append(RawRow(len(rows), {}, f"item {position}: {problem.detail}"))
        else:
            rows += [RawRow(len(rows) + offset, cells) for offset, cells in enumerate(made)]
    return rows


def text(item: Item, key: str) -> str:
    """A text of an item.

    Raises:
        Unusable: missing_value where it is absent or something else.
    """
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Unusable("missing_value", f"{key} is {value!r:.80}, expected a text")
    return value.strip()


def texts(item: Item, key: str) -> list[str]:
    """A list of texts of an item, maybe empty.

    Raises:
        Unusable: missing_value where it is absent or something else.
    """
    value = item.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unusable("missing_value", f"{key} is {value!r:.80}, expected a list of texts")
    return value


def find_file(path: Path, names: Sequence[str], benchmark: str) -> Path:
    """The file itself, or the first of these that a folder has.

    Raises:
        DataError: the folder has none of them.
    """
    if path.is_file():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise DataError(
            f"the folder holds no {benchmark} files",
            where=str(path),
            expected=f"one of {', '.join(names)}",
            remedy="Name the folder that they lie in, or the file itself (docs/benchmarks.md shows the layouts).",
        )
    return found


def read_json(path: Path, kind: type, what: str) -> Any:
    """A JSON file whose outermost value is a list or an object, not empty.

    Args:
        path: the file.
        kind: list or dict.
        what: it holds, for the message.

    Raises:
        DataError: it is missing, no JSON, or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        problem = error.strerror if isinstance(error, OSError) else f"no JSON: {error}"
        raise DataError(
            f"cannot read {what}: {problem}"[:300], where=str(path), remedy="Take the file as it was published."
        ) from error
    if not isinstance(value, kind) or not value:
        raise DataError(
            f"the file holds {'nothing' if not value else f'a JSON {type(value).__name__}'}",
            where=str(path),
            expected=f"{what}, a JSON {'array' if kind is list else 'object'}",
            remedy="Take the file as it was published.",
        )
    return value


def require_keys(items: Sequence[Any], keys: Sequence[str], path: Path) -> None:
    """The first item has the keys of the published layout; single items may still lack some.

    Raises:
        DataError: it lacks one.
    """
    first = items[0] if items and isinstance(items[0], dict) else {}
    if missing := [key for key in keys if key not in first]:
        raise DataError(
            f"the first item has no {', '.join(missing)}",
            where=str(path),
            expected=f"the keys {', '.join(keys)}",
            remedy="Take the file as it was published; docs/benchmarks.md shows the layouts.",
        )


class Pictures:
    """Pictures by name under the image root, in one of the folders that a benchmark's pictures come in.

    Args:
        root: as `image_root` returns it.
        folders: to look in, in this order; "" is the root itself.
    """

    def __init__(self, root: Path, folders: Sequence[str] = ("",)) -> None:
        self._root, self._folders = root, folders
        self._asked, self._found = "", False

    def find(self, *names: str) -> str:
        """Path under the root of the first of these names that is there; the first path looked at if none is."""
        paths = [f"{folder}/{name}" if folder else name for folder in self._folders for name in names]
        self._asked = self._asked or paths[0]
        for path in paths:
            if self.has(path):
                self._found = True
                return path
        return paths[0]

    def has(self, path: str) -> bool:
        """There is such a file, inside the root."""
        try:
            resolve_image(self._root, path)
        except Unusable:
            return False
        return True

    def require_any(self) -> None:
        """Not all pictures may be missing: then the folder is wrong, and no row need be tried.

        Raises:
            DataError: none was found, though some were looked for.
        """
        if self._asked and not self._found:
            raise DataError(
                "none of the benchmark's pictures is there",
                where=str(self._root),
                expected=f"pictures such as {self._asked}",
                remedy="Name the folder of the pictures with samples.image_root (--images).",
            )
