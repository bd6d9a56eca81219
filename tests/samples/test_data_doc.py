"""docs/data.md names every column of every record, every reason for dropping a row, and every mapping setting."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from mbpo_core import records
from mbpo_core.config import SamplesConfig
from mbpo_core.records import Record
from mbpo_core.samples.images import FORMATS
from mbpo_core.stages import STAGES

TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
RECORDS = [
    value
    for value in vars(records).values()
    if isinstance(value, type)
    and issubclass(value, Record)
    and value not in (Record, records.Image, records.Part, records.Message)
]
WORDS = {str: "text", int: "integer", float: "number", bool: "true/false"}


def type_name(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if type(None) in arguments:
        return f"{type_name(arguments[0])} or null"
    if typing.get_origin(annotation) is list:
        return f"list of {type_name(arguments[0])}"
    if typing.get_origin(annotation) is Literal:
        return "text"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    return WORDS[annotation]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_column_is_described(record: type[Record]) -> None:
    section = TEXT.split(f"\n### {record.__name__}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", section, re.MULTILINE)
    expected = [(name, type_name(field.annotation)) for name, field in record.model_fields.items()]
    assert [(name, kind) for name, kind, _ in rows] == expected
    for (name, _, meaning), field in zip(rows, record.model_fields.values(), strict=True):
        assert meaning.startswith(field.description or ""), name


def test_every_reason_is_described_where_it_belongs() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (bad|filtered) \| .+ \|$", TEXT, re.MULTILINE)
    declared = [(reason, spec.name, sort) for spec in STAGES.values() for reason, sort in spec.reasons.items()]
    assert sorted(rows) == sorted(declared)


def test_every_mapping_setting_and_format_is_named() -> None:
    for name in SamplesConfig.model_fields:
        if (
            name.endswith("_column")
            or name.startswith("url_")
            or name in ("image_root", "max_pixels", "limit", "answer_form", "allow_download")
        ):
            assert f"`samples.{name}`" in TEXT or f"`{name}`" in TEXT, name
    for form in FORMATS:
        assert form in TEXT
