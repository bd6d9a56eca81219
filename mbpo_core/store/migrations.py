"""Reading tables of an older schema: migrated by a registered function, or refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mbpo_core import tables
from mbpo_core.errors import SchemaError
from mbpo_core.records import Record
from mbpo_core.store.manifest import TableInfo
from mbpo_core.tables import Row

Migration = Callable[[Row], Row]

_MIGRATIONS: dict[tuple[str, int], Migration] = {}


def migration(record: str, version: int) -> Callable[[Migration], Migration]:
    """Register a function that turns a row of `record` at `version` into one at `version + 1`.

    @migration("Sample", 1)
    def add_split(row): return row | {"split": "eval"}
    """

    def register(function: Migration) -> Migration:
        _MIGRATIONS[record, version] = function
        return function

    return register


def table_info(record: type[Record]) -> TableInfo:
    """The schema that a table of this record has today."""
    return TableInfo(record=record.__name__, version=tables.schema_version(record), columns=tables.columns_of(record))


def migrations_for(written: TableInfo, record: type[Record], *, where: str) -> list[Migration]:
    """What to apply to each row, in order; empty when the schema is today's.

    Columns that came later and only watch are null in tables without them.

    Raises:
        SchemaError: there is no way from the written schema to today's; names the columns that differ.
    """
    today = table_info(record)
    lacking = tables.later_columns(record) - written.columns.keys()
    fill: list[Migration] = [partial(_filled, names=sorted(lacking))] if lacking else []
    there = {name: kind for name, kind in today.columns.items() if name not in lacking}
    if written == today.model_copy(update={"columns": there}):
        return fill
    steps = [_MIGRATIONS.get((written.record, version)) for version in range(written.version, today.version)]
    known = [step for step in steps if step is not None]
    if len(known) < len(steps) or not steps:
        raise SchemaError(
            f"the table was written as {written.record} version {written.version}: {_difference(written, today)}",
            where=where,
            expected=f"{today.record} version {today.version}",
            remedy="Run the stage again, or register a migration (mbpo_core/store/migrations.py).",
        )
    return [*known, *fill]


def _filled(row: Row, names: list[str]) -> Row:
    return dict.fromkeys(names) | row


def _difference(written: TableInfo, today: TableInfo) -> str:
    old, new = written.columns, today.columns
    parts = [f"it lacks {name}" for name in new if name not in old]
    parts += [f"it has {name}" for name in old if name not in new]
    parts += [f"{name} is {old[name]}, not {new[name]}" for name in old if name in new and old[name] != new[name]]
    return ", ".join(parts) or "its columns are the same"
