"""Which images outside the store an import reads; the store puts their listing into the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, overload

from mbpo_core.config import SamplesConfig
from mbpo_core.samples.benchmarks import is_benchmark, open_benchmark
from mbpo_core.samples.paths import image_root, image_values, input_path, is_missing, named_paths, resolve_image
from mbpo_core.samples.problems import Unusable
from mbpo_core.samples.readers import ParquetReader, open_input, parquet_files
from mbpo_core.samples.urls import UrlFolder, is_url
from mbpo_core.stage import External


class Files(Sequence[Path]):
    """Different paths in the order of their names, kept as plain strings: a fifth of the memory."""

    def __init__(self, names: list[str]) -> None:
        names.sort()
        self._names = [name for name, _ in groupby(names)]

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        found = self._names[index]
        return Path(found) if isinstance(found, str) else [Path(name) for name in found]


def read_files(config: SamplesConfig) -> External:
    """The input itself: a file, a folder with all that is in it, or those files of a folder that make up a benchmark.

    Raises:
        DataError: a benchmark's file is missing or has another layout.
    """
    if not is_benchmark(config):
        return External(input_path(config))
    benchmark = open_benchmark(config)
    return External(benchmark.folder, only=lambda: benchmark.files)


def named_images(config: SamplesConfig) -> Files:
    """The image files that the input names by path, each once, in the order of their names.

    Images that do not exist, or lie outside the image root, are not read and not listed: once they exist, the
    listing changes. Images inside the input (bytes, a dataset folder) change the input itself.

    Raises:
        DataError: the input or the image root does not exist, or the input cannot be read.
    """
    root = image_root(config)
    cells = (cell for cell in _image_cells(config, input_path(config)) if not is_missing(cell))
    asked: set[bytes] = set()  # digests of names, which many rows may share
    files: list[str] = []
    for name in (name for cell in cells for name in named_paths(cell)):
        digest = hashlib.blake2b(name.encode(errors="replace"), digest_size=16).digest()
        if digest in asked:
            continue
        asked.add(digest)
        with suppress(Unusable):
            files.append(str(resolve_image(root, name)))
    return Files(files)


def fetched_images(config: SamplesConfig) -> Files:
    """The files of samples.url_folder that belong to the URLs which the first samples.limit rows name.

    What is missing is fetched; see `mbpo_core.samples.urls`.

    Raises:
        DataError: the input does not exist, or cannot be read.
    """
    if is_benchmark(config):
        return Files([])  # published files name local pictures only
    reader = open_input(config)
    rows = islice(reader.rows([config.image_column]), config.limit or None)
    values = (value for row in rows for value in image_values(row.cells.get(config.image_column)))
    named = (value for value in values if not (isinstance(value, dict) and value.get("bytes")))
    urls = {name for value in named for name in named_paths(value) if is_url(name)}
    return Files([str(file) for file in UrlFolder(config).fetch(urls)])


def _image_cells(config: SamplesConfig, path: Path) -> Iterator[Any]:
    """The image column's cells, without image bytes."""
    if is_benchmark(config):
        yield from open_benchmark(config).image_cells()
    elif config.source == "jsonl" or (config.source == "parquet" and config.json_column):
        yield from (row.cells[config.image_column] for row in open_input(config).rows([config.image_column]))
    elif config.source == "parquet":
        yield from _parquet_paths(parquet_files(path), config.image_column)


def _parquet_paths(files: list[Path], column: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    ParquetReader(files)  # complains about files that are no Parquet
    for file in files:
        with pq.ParquetFile(file) as parquet:
            leaves = [name for name in _leaf_names(parquet) if name == column or name.startswith(f"{column}.")]
            textual = [name for name in leaves if name.rsplit(".", 1)[-1] != "bytes" and not _is_binary(parquet, name)]
            for batch in parquet.iter_batches(4096, columns=textual) if textual else ():
                yield from (row[column] for row in batch.to_pylist())


def _leaf_names(parquet: Any) -> list[str]:
    return [parquet.schema.column(i).path for i in range(len(parquet.schema))]


def _is_binary(parquet: Any, leaf: str) -> bool:
    index = _leaf_names(parquet).index(leaf)
    column = parquet.schema.column(index)
    return bool(column.physical_type == "BYTE_ARRAY" and str(column.logical_type) != "String")
