"""Tables: the Arrow schema of each record, and Parquet files that notice damage.

A column is declared once, as a field of a record in `mbpo_core.records`; the schema, the
Hugging Face `features` in the footer and the row checks all derive from it.
"""

from __future__ import annotations

import functools
import io
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from mbpo_core.errors import DamagedArtifact, SchemaError
from mbpo_core.records import Image, Record

Row = dict[str, Any]

# Well under the 100 MB that dataset viewers accept, and small enough to read a few rows cheaply.
MAX_GROUP_BYTES = 32 * 2**20

_SCALARS: dict[type, Any] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
}


@functools.cache
def arrow_schema(record: type[Record]) -> Any:
    """The Arrow schema of a record, with the Hugging Face features as metadata.

    Returns:
        A `pyarrow.Schema`; every column may be null in Arrow, the record decides in `check_rows`.

    Raises:
        SchemaError: a field's type has no column type.
    """
    fields = [
        pa.field(name, _arrow_type(field.annotation, f"{record.__name__}.{name}"))
        for name, field in record.model_fields.items()
    ]
    features = {name: _feature(field.annotation) for name, field in record.model_fields.items()}
    metadata = {
        "huggingface": json.dumps({"info": {"features": features}}),
        "mbpo": json.dumps({"record": record.__name__, "schema_version": schema_version(record)}),
    }
    return pa.schema(fields, metadata=metadata)


def schema_version(record: type[Record]) -> int:
    """The record's `schema_version` class variable; 1 where it has none."""
    return int(getattr(record, "schema_version", 1))


def columns_of(record: type[Record]) -> dict[str, str]:
    """Column names and Arrow types as text, as manifests keep them."""
    return {column.name: str(column.type) for column in arrow_schema(record)}


@functools.cache
def volatile_columns(record: type[Record]) -> frozenset[str]:
    """Columns that differ between equal runs (seconds); left out of content digests."""
    return _marked(record, "volatile")


@functools.cache
def later_columns(record: type[Record]) -> frozenset[str]:
    """Columns that tables written before do not have (`records.watched`)."""
    return _marked(record, "later")


def _marked(record: type[Record], mark: str) -> frozenset[str]:
    return frozenset(
        name
        for name, field in record.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get(mark)
    )


def check_rows(rows: Sequence[Mapping[str, Any] | BaseModel], record: type[Record], *, where: str) -> list[Row]:
    """Rows as plain dicts in the record's exact types, defaults filled in.

    Raises:
        SchemaError: a row has an unknown, missing or ill-typed column; names row, column and value.
    """
    checked = []
    for index, row in enumerate(rows):
        try:
            checked.append(record.model_validate(row.model_dump() if isinstance(row, BaseModel) else row).model_dump())
        except ValidationError as error:
            first = error.errors()[0]
            column = ".".join(map(str, first["loc"])) or record.__name__
            raise SchemaError(
                f"column {column} of row {index}: {first['msg']}, got {first['input']!r:.80}",
                where=where,
                expected=f"a row of {record.__name__}",
                remedy="mbpo_core/records.py lists the columns.",
            ) from error
    return checked


def to_table(rows: Sequence[Row], record: type[Record]) -> Any:
    """An Arrow table of rows that `check_rows` has passed."""
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(record))


def encode(table: Any) -> bytes:
    """The table as a Parquet file: zstd, page checksums, bounded row groups.

    Equal tables give equal bytes (for one pyarrow version).
    """
    sink = io.BytesIO()
    words = [column.name for column in table.schema if column.type == pa.string()]
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True, use_dictionary=words or False
    ) as writer:
        for group in _groups(table):
            writer.write_table(group, row_group_size=max(1, group.num_rows))
    return sink.getvalue()


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """Turn what pyarrow raises on a broken file into DamagedArtifact."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DamagedArtifact(
            f"the Parquet file cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=where,
            expected="the bytes that were written",
            remedy="Run the stage again: the damaged part is made anew.",
        ) from error


def open_parquet(source: Any, *, where: str) -> Any:
    """Open a Parquet file so that every page read is checked against its checksum.

    Args:
        source: a path or a seekable binary file.
        where: names the file in errors.

    Raises:
        DamagedArtifact: the file is missing, cut short or not Parquet.
    """
    with damage_named(where):
        return pq.ParquetFile(source, page_checksum_verification=True)


def _groups(table: Any) -> Iterator[Any]:
    if table.num_rows > 1 and table.nbytes > MAX_GROUP_BYTES:
        half = table.num_rows // 2
        yield from _groups(table.slice(0, half))
        yield from _groups(table.slice(half))
    else:
        yield table


def _inner(annotation: Any) -> Any:
    """X of `X | None`; the columns are nullable anyway."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return annotation


def _arrow_type(annotation: Any, where: str) -> Any:
    annotation = _inner(annotation)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if get_origin(annotation) is Literal and all(isinstance(value, str) for value in get_args(annotation)):
        return pa.string()
    if get_origin(annotation) is list:
        return pa.list_(_arrow_type(get_args(annotation)[0], where))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(
            [(name, _arrow_type(field.annotation, where)) for name, field in annotation.model_fields.items()]
        )
    raise SchemaError(
        f"{annotation!r} has no column type", where=where, expected="str, int, float, bool, bytes, list or a Record"
    )


def _feature(annotation: Any) -> dict[str, Any]:
    """The type as Hugging Face `datasets` writes it into Parquet footers, so that images decode."""
    annotation = _inner(annotation)
    if annotation is Image:
        return {"_type": "Image"}
    if get_origin(annotation) is list:
        return {"feature": _feature(get_args(annotation)[0]), "_type": "List"}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: _feature(field.annotation) for name, field in annotation.model_fields.items()}
    arrow = str(_SCALARS.get(annotation, "string"))
    return {"dtype": {"double": "float64"}.get(arrow, arrow), "_type": "Value"}
