"""Raw rows, streamed: JSON Lines, Parquet, and dataset folders, all offline."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples.normalise import META, RawRow
from mbpo_core.samples.paths import input_path

_PEEK = 100  # JSON Lines: rows whose keys make up the columns
_BATCH = 64  # rows decoded together
_SHARD = re.compile(r"([A-Za-z]\w*)-\d+-of-\d+")  # train-00000-of-00002.parquet, as the hub names files


class RawReader(Protocol):
    """An input of known columns and length."""

    columns: list[str]
    count: int

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """All rows in order with the given cells, streamed: memory does not grow with their number."""


def open_reader(config: SamplesConfig) -> RawReader:
    """Open the configured input and check it before anything is computed.

    Raises:
        DataError: it is missing, of another format, empty, or lacks a mapped column (the message
            lists the columns there are and the closest one).
    """
    path = input_path(config)
    reader: RawReader
    if config.source == "jsonl":
        reader = JsonlReader(path)
    elif config.source == "parquet":
        reader = ParquetReader(_parquet_files(path))
    else:
        reader = _open_folder(path)
    if reader.count == 0:
        raise DataError("the input has no rows", where=str(config.path), remedy="Check samples.path.")
    _check_columns(config, reader.columns)
    return reader


def mapped_columns(config: SamplesConfig) -> dict[str, str]:
    """Setting -> input column, of the columns that the settings ask for."""
    wanted = {"image_column": config.image_column}
    if config.conversation_column:
        wanted["conversation_column"] = config.conversation_column
    else:
        wanted |= {"question_column": config.question_column, "answer_column": config.answer_column}
    for name in ("rejected_column", "aliases_column", "id_column", "kind_column", "choices_column", "split_column"):
        if column := getattr(config, name):
            wanted[name] = column
    return wanted


def columns_to_read(config: SamplesConfig, available: Sequence[str]) -> list[str]:
    """The mapped columns, and `meta` where the input has one."""
    wanted = list(dict.fromkeys(mapped_columns(config).values()))
    return [*wanted, META] if META in available and META not in wanted else wanted


class JsonlReader:
    """One JSON object a line, UTF-8; blank lines do not count. A broken line is a row with a problem."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        keys: dict[str, None] = {}
        for line in self._lines():
            if self.count < _PEEK:
                keys |= dict.fromkeys(self._first_row(line) if self.count == 0 else _parse(line, self.count).cells)
            self.count += 1
        self.columns = list(keys)

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """See `RawReader`."""
        for index, line in enumerate(self._lines()):
            row = _parse(line, index)
            yield RawRow(index, {name: row.cells.get(name) for name in columns}, row.problem)

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            for line in file:
                if line.strip(b"\xef\xbb\xbf \t\r\n"):  # a byte-order mark alone is blank, too
                    yield line

    def _first_row(self, line: bytes) -> dict[str, Any]:
        """The first row's keys; a file that is no JSON Lines at all is an error, not a dropped row."""
        row = _parse(line, 0)
        if row.problem:
            raise DataError(
                f"the first line is no JSON object: {row.problem}",
                where=str(self._path),
                expected='one JSON object a line, such as {"image": "1.png", "question": "...", "answer": "..."}',
                remedy="Write a JSON array as lines with: jq -c '.[]' file.json > file.jsonl",
            )
        return dict(row.cells)


def _parse(line: bytes, index: int) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        return RawRow(index, {}, f"the line is no JSON: {error}"[:200])
    if not isinstance(value, dict):
        return RawRow(index, {}, f"the line is a JSON {type(value).__name__}, expected an object")
    return RawRow(index, value)


class ParquetReader:
    """Parquet files in name order; only mapped columns of the needed row groups are read.

    Files named like train-00000-of-00002.parquet get a column `split` ("train") if they have none.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self._files = files
        self.count = 0
        columns: list[str] | None = None
        for path in files:
            try:
                with pq.ParquetFile(path) as file:
                    names = file.schema_arrow.names
                    self.count += file.metadata.num_rows
            except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
                raise DataError(
                    f"not a Parquet file: {str(error).splitlines()[0]}", where=str(path), remedy="Check samples.path."
                ) from error
            # Only what all files have can be mapped.
            columns = names if columns is None else [name for name in columns if name in names]
        self.columns = columns or []
        self._named_split = "split" not in self.columns and all(_SHARD.fullmatch(path.stem) for path in files)
        if self._named_split:
            self.columns = [*self.columns, "split"]

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """See `RawReader`."""
        import pyarrow.parquet as pq

        stored = [name for name in columns if not (self._named_split and name == "split")]
        index = 0
        for path in self._files:
            shard = _SHARD.fullmatch(path.stem)
            extra = {"split": shard[1]} if self._named_split and shard else {}
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_BATCH, columns=stored):
                    for row in batch.to_pylist():
                        yield RawRow(index, row | extra)
                        index += 1


class DatasetReader:
    """A `datasets` folder: what `save_to_disk` wrote, or an image folder. Images stay encoded.

    Splits of a DatasetDict follow one another; rows get a column `split` with their split's name
    if they have none.
    """

    def __init__(self, splits: dict[str, Any]) -> None:
        self._splits = splits
        self.count = sum(len(part) for part in splits.values())
        names = [name for part in splits.values() for name in part.column_names]
        self.columns = list(
            dict.fromkeys(name for name in names if all(name in p.column_names for p in splits.values()))
        )
        self._named_split = "split" not in self.columns and set(splits) != {""}
        if self._named_split:
            self.columns.append("split")

    def rows(self, columns: Sequence[str]) -> Iterator[RawRow]:
        """See `RawReader`."""
        index = 0
        for name, part in self._splits.items():
            stored = [column for column in columns if column in part.column_names]
            labels = {c: part.features[c].names for c in stored if getattr(part.features[c], "names", None)}
            table = part.select_columns(stored).with_format("arrow")  # raw structs: nothing is decoded
            for start in range(0, len(part), _BATCH):
                for row in table[start : start + _BATCH].to_pylist():
                    for column, words in labels.items():  # class labels are stored as numbers
                        row[column] = words[row[column]] if row[column] is not None and row[column] >= 0 else None
                    yield RawRow(index, {"split": name} | row if self._named_split else row)
                    index += 1


def _open_folder(path: Path) -> RawReader:
    """The reader of a dataset folder, told by what lies in it."""
    from datasets import Dataset, load_from_disk

    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        try:
            stored = load_from_disk(str(path))
        except Exception as error:  # datasets raises many kinds on broken folders
            raise DataError(
                f"the saved dataset cannot be opened: {error}",
                where=str(path),
                remedy="Save it anew with save_to_disk.",
            ) from error
        return DatasetReader({"": stored} if isinstance(stored, Dataset) else dict(stored))
    if any(path.rglob("*.parquet")) and not any(path.rglob("metadata.parquet")):
        return ParquetReader(_parquet_files(path))
    return DatasetReader(_image_folder(path))


def _image_folder(path: Path) -> dict[str, Any]:
    """An image folder with metadata.jsonl, metadata.csv or metadata.parquet, read by `datasets`."""
    import tempfile

    from datasets import DownloadConfig, load_dataset

    found = sorted(file for file in path.rglob("metadata.*") if file.suffix in {".jsonl", ".csv", ".parquet"})
    if not found:
        raise DataError(
            "the folder is no dataset",
            where=str(path),
            expected="what datasets' save_to_disk writes, *.parquet files, or images with a metadata.jsonl",
            remedy="Name the dataset's own folder, or import its JSON Lines or Parquet file.",
        )
    with tempfile.TemporaryDirectory() as cache:  # holds paths and metadata only, never pictures
        loaded = load_dataset(
            "imagefolder", data_dir=str(path), cache_dir=cache, keep_in_memory=True,
            download_config=DownloadConfig(local_files_only=True),
        )  # fmt: skip
        return dict(loaded)


def _parquet_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.parquet") if file.is_file())
    if not files:
        raise DataError("no *.parquet file in the folder", where=str(path), remedy="Check samples.path.")
    return files


def _check_columns(config: SamplesConfig, available: Sequence[str]) -> None:
    for setting, column in mapped_columns(config).items():
        if column not in available:
            close = difflib.get_close_matches(column, available, n=1, cutoff=0.5)
            hint = f"; the closest is {close[0]!r}" if close else ""
            raise DataError(
                f"the input has no column {column!r}{hint}",
                where=f"samples.{setting}, {config.path}",
                expected=f"one of {', '.join(available)}",
                remedy=f"Set samples.{setting}={close[0] if close else '<column>'}.",
            )
