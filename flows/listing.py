"""What there is to choose from: methods, objectives and negatives as tables, as JSON, or one method in detail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml
from rich.markup import escape
from rich.table import Table

from flows import console
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError
from mbpo_core.methods import METHODS, NEGATIVES, OBJECTIVES, Entry, ObjectiveEntry

Entries = Mapping[str, Entry] | Mapping[str, ObjectiveEntry]


@dataclass(frozen=True)
class Parts:
    """What a method is made of, by the names of the tables; "" where it has no such part.

    Attributes:
        objective: loss on pairs.
        negatives: generator that the pairs come from.
        images: generator of rejected images for the pairs.
        online: whether verified groups are trained on.
    """

    objective: str
    negatives: str
    images: str
    online: bool


def parts_of(name: str) -> Parts:
    """The parts of a method, by the settings that it really has."""
    config = PipelineConfig.model_validate({"method": name, **METHODS[name].given})
    objective = config.training.objective
    return Parts(
        objective="" if objective == "none" else objective,
        negatives=config.negatives.method if config.wants_pairs else "",
        images=config.images.method if config.makes_images else "",
        online=config.training.use_online,
    )


def settings_yaml(name: str) -> str:
    """What `method: name` stands for, as lines of a run config that take its place; "" for mbpo, which has none.

    The sections' own defaults are those of mbpo, so that is their first line. What a config has to say itself is in it
    with an example.
    """
    entry = METHODS[name]
    settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in entry.settings.items()}
    for section, fields in entry.given.items():
        settings[section] = settings.get(section, {}) | dict(fields)
    return yaml.safe_dump({"method": "mbpo"} | settings, sort_keys=False) if settings else ""


def show_methods(name: str | None, *, as_json: bool) -> None:
    """Print all tables, or one method with what it stands for.

    Raises:
        ConfigError: there is no such method; names the nearest ones.
    """
    if name is not None and name not in METHODS:
        raise _unknown(name)
    if as_json:
        print(json.dumps(as_records(name), ensure_ascii=False))
    elif name is None:
        for title, entries in (
            ("Methods (method)", METHODS),
            ("Objectives on pairs (training.objective)", OBJECTIVES),
            ("Negatives (negatives.method, images.method)", NEGATIVES),
        ):
            console.make_console().print(_table(title, entries))
        console.say(
            "An answer is a greedy completion; G is rollouts.group_size. docs/methods.md says how parts compose."
        )
        console.say("mbpo methods NAME shows what one method stands for.")
    else:
        _show_method(name)


def as_records(name: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Everything, or one method with its parts, as JSON values."""
    parts = parts_of(name) if name else None
    objectives = [parts.objective] if parts else list(OBJECTIVES)
    negatives = [parts.negatives, parts.images] if parts else list(NEGATIVES)
    return {
        "methods": [
            _record(one, METHODS[one], settings=METHODS[one].settings, given=METHODS[one].given, **vars(parts_of(one)))
            for one in ([name] if name else METHODS)
        ],
        "objectives": [_record(one, OBJECTIVES[one], settings=OBJECTIVES[one].settings) for one in objectives if one],
        "negatives": [
            _record(one, NEGATIVES[one], options=NEGATIVES[one].options, settings=NEGATIVES[one].settings)
            for one in dict.fromkeys(negatives)
            if one
        ],
    }


def _record(name: str, entry: Entry | ObjectiveEntry, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "line": entry.line,
        "source": entry.source,
        "needs": entry.needs,
        "cost": entry.cost,
        **more,
    }


def _table(title: str, entries: Entries) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("name", no_wrap=True)
    for heading, ratio in (("what it does", 5), ("source", 3), ("needs", 3), ("cost", 3)):
        table.add_column(heading, ratio=ratio)
    for name, entry in entries.items():
        table.add_row(*(escape(cell) for cell in (name, entry.line, entry.source, entry.needs, entry.cost)))
    return table


def _show_method(name: str) -> None:
    entry, parts = METHODS[name], parts_of(name)
    table = Table(title=f"{name}: {escape(entry.line)}", title_justify="left", show_header=False, box=None)
    rows = [
        ("source", entry.source),
        ("needs", entry.needs or "nothing beyond questions with an image and an answer"),
        ("cost", entry.cost),
        ("objective", _described(parts.objective, OBJECTIVES)),
        ("negatives", _described(parts.negatives, NEGATIVES)),
        ("images", _described(parts.images, NEGATIVES)),
        ("online", "verified groups (section rollouts)" if parts.online else ""),
    ]
    for heading, text in rows:
        if text:
            table.add_row(heading, escape(text))
    make = console.make_console()
    make.print(table)
    lines = settings_yaml(name)
    if not lines:
        console.say(f"\nmethod: {name} changes no default of a section.")
        return
    console.say(f"\nmethod: {name} stands for these lines of a run config:\n")
    console.say(lines.rstrip())
    for section, fields in entry.given.items():
        console.say(f"\nPut your own in place of {', '.join(f'{section}.{field}' for field in fields)}.")


def _described(name: str, entries: Entries) -> str:
    """One part in words, with the settings that are its own."""
    if not name:
        return ""
    entry = entries[name]
    own = getattr(entry, "settings", ())
    lines = [f"{name}: {entry.line}", f"{entry.source}; {entry.cost}"]
    lines += [f"settings: {', '.join(own)}"] if own else []
    lines += [f"options: {options}"] if (options := getattr(entry, "options", "")) else []
    return "\n".join(lines)


def _unknown(name: str) -> ConfigError:
    near = get_close_matches(name.lower().replace("-", "_"), METHODS, n=4, cutoff=0.5)
    kind = "training.objective" if name in OBJECTIVES else "negatives.method" if name in NEGATIVES else ""
    part = f"{name} is a value of {kind}. " if kind else ""
    return ConfigError(
        f"there is no method {name!r}",
        expected=f"one of {', '.join(near)}" if near else "",
        remedy=f"{part}mbpo methods lists all.",
    )
