"""Raw rows, streamed: JSON Lines, Parquet, and dataset folders, all offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples.columns import RawReader, Unfolded, check_cells, check_columns
from mbpo_core.samples.json_rows import JsonReader
from mbpo_core.samples.normalise import RawRow
from mbpo_core.samples.paths import input_path

_BATCH = 64  # rows decoded together
_SHARD = re.compile(r"([A-Za-z]\w*)-\d+-of-\d+(?:-[0-9a-f]+)?")  # train-00000-of-00002.parquet, as the hub names files


def open_reader(config: SamplesConfig) -> RawReader:
    """Open the configured input and check it before anything is computed.

    Raises:
        DataError: it is missing, of another format, empty, lacks a mapped column (the message lists the columns
            there are and the closest one), or such a column holds nothing that can be read.
    """
    reader = open_input(config)
    check_columns(config, reader.columns)
    check_cells(config, reader)
    return reader


def open_input(config: SamplesConfig) -> RawReader:
    """Open the configured input, whatever its columns are.

    Raises:
        DataError: it is missing, of another format or empty, or has no column samples.json_column.
    """
    path = input_path(config)
    reader: RawReader
    if config.source == "jsonl":
        reader = JsonReader(path)
    elif config.source == "parquet":
        reader = ParquetReader(parquet_files(path))
    else:
        reader = _open_folder(path)
    if reader.count == 0:
        raise DataError("the input has no rows", where=str(config.path), remedy="Check samples.path.")
    if not config.json_column:
        return reader
    if config.json_column not in reader.columns:
        raise DataError(
            f"the input has no column {config.json_column!r}",
            where=f"samples.json_column, {config.path}",
            expected=f"one of {', '.join(reader.columns)}",
            remedy="Name the column of JSON objects, or leave it empty.",
        )
    return Unfolded(reader, config.json_column)


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
            with pq.ParquetFile(path) as file, _culprit_named(str(path), stored, partial(_read_column, path)):
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
            with _culprit_named(f"split {name or 'of the dataset'}", stored, partial(_read_cells, table)):
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
        return ParquetReader(parquet_files(path))
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


def parquet_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.parquet") if file.is_file())
    if not files:
        raise DataError("no *.parquet file in the folder", where=str(path), remedy="Check samples.path.")
    return files


@contextmanager
def _culprit_named(where: str, columns: Sequence[str], read: Callable[[str], Any]) -> Iterator[None]:
    """Turn what pyarrow raises on data it cannot decode into a DataError that names the column."""
    broken = (
        OSError,
        ValueError,
        NotImplementedError,
    )  # pyarrow's errors are kinds of these; bad UTF-8 is a ValueError
    try:
        yield
    except broken as error:
        culprits = []
        for name in columns:
            try:
                read(name)
            except broken:
                culprits.append(name)
        raise DataError(
            f"column {', '.join(map(repr, culprits or columns))} cannot be read: {str(error).splitlines()[0]:.200}",
            where=where,
            expected="data that pyarrow can decode",
            remedy="Fetch or write the file anew, or map another column.",
        ) from error


def _read_column(path: Path, name: str) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH, columns=[name]):
            batch.to_pylist()


def _read_cells(table: Any, name: str) -> None:
    for start in range(0, len(table), _BATCH):
        table[start : start + _BATCH][name].to_pylist()
