"""Looking at an input before it is imported: `mbpo samples inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import console
from flows.paths import config_file
from mbpo_core.config import SamplesConfig, build_config, load_config
from mbpo_core.errors import ConfigError
from mbpo_core.samples.inspection import Inspection, inspect_input

_CELL = 60  # characters of a text in a table
_SOURCES = {".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


def show_input(path: str | None, config: Path | None, changes: list[str], looked: int, *, as_json: bool) -> None:
    """Print what an import would make of its input; exit code 1 if it would make nothing.

    Raises:
        ConfigError: neither a path nor a run config is given, or a setting is wrong.
        DataError: the input is missing, empty, or of another format.
    """
    found = inspect_input(_settings(path, config, changes), looked)
    if as_json:
        console.say_json(found.model_dump(mode="json") | {"importable": found.importable})
    else:
        _print(found)
    if not found.importable:
        raise SystemExit(1)


def _settings(path: str | None, config: Path | None, changes: list[str]) -> SamplesConfig:
    """The samples section of a run config; without one, that of a path, its source told by its name."""
    if path is not None:
        changes = [f"samples.path={path}", *changes]
    if config is not None:
        return load_config(config_file(config), changes).samples
    if path is None and not changes:
        raise ConfigError(
            "no input is named", where="mbpo samples inspect", remedy="Give a path, or --config with a run config."
        )
    name = path.partition(":")[2] or path if path else ""
    source = _SOURCES.get(Path(name).suffix.lower(), "dataset")
    return build_config({"samples": {"source": source}} if path else {}, changes, where="--set").samples


def _print(found: Inspection) -> None:
    told = f"{found.source} {found.path}: {found.rows:,} rows"
    console.say(f"{told}, the first {found.looked:,} looked at" if found.looked < found.rows else told)
    shown = console.table("Columns", "column", "holds", "samples setting")
    for column in found.columns:
        serves = ", ".join(column.serves) or (f"perhaps {column.suggested}" if column.suggested else "")
        shown.add_row(*map(console.plain, (column.name, column.holds, serves)))
    console.make_console().print(shown)
    for setting, name in found.missing.items():
        console.say(f"samples.{setting} names {name!r}, which is not there.")
    if found.shown:
        _print_rows(found)
    _print_problems(found)
    if found.suggested:
        words = " ".join(f"--set samples.{setting}={name}" for setting, name in found.suggested.items())
        console.say(f"Perhaps: {words}")
    if found.missing:
        console.say("As it is set nothing can be imported" + (": the rows above need that." if found.shown else "."))
    elif not found.usable:
        console.say("None of these rows can be imported.")


def _print_rows(found: Inspection) -> None:
    shown = console.table("First rows", "row", "id", "question", "answer", "kind", "form", "split", "pictures")
    for row in found.shown:
        if row.problem:
            cells = [f"{row.row}", _short(row.sample_id), f"cannot be used: {row.problem}"]
            shown.add_row(*map(console.plain, cells))
            continue
        answer = row.answer if row.rejected is None else f"{_short(row.answer)}\nrejected: {_short(row.rejected)}"
        cells = [f"{row.row}", _short(row.sample_id), _short(row.question), answer if row.rejected else _short(answer)]
        shown.add_row(*map(console.plain, [*cells, row.kind, row.answer_form, row.split, " ".join(row.pictures)]))
    console.make_console().print(shown)
    console.say(f"Usable: {found.usable:,} of {found.looked:,}")
    counted: dict[str, Mapping[Any, int]] = {
        "Kinds": found.kinds,
        "Answer forms": found.answer_forms,
        "Splits": found.splits,
        "Pictures a row": found.pictures,
        "Came as": found.formats,
    }
    for title, counts in counted.items():
        if counts:
            console.say(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for title, spread in (("Width", found.widths), ("Height", found.heights)):
        if spread:
            console.say(f"{title}: {spread.least} to {spread.most}, median {spread.median:g} pixels")


def _print_problems(found: Inspection) -> None:
    if not found.problems:
        return
    shown = console.table("Rows that cannot be used", "reason", "rows", "for example", right=("rows",))
    for problem in found.problems:
        shown.add_row(*map(console.plain, (problem.reason, f"{problem.rows:,}", problem.example)))
    console.make_console().print(shown)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"
