"""Schemas, row checks and Parquet files, also as other libraries see them."""

from __future__ import annotations

import io
import math
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mbpo_core import records, tables
from mbpo_core.errors import DamagedArtifact, SchemaError
from tests.execution.fakes import picture, sample

PAIR: dict[str, Any] = {
    "sample_id": "s000",
    "images": [{"bytes": picture(10, 1), "path": "a.png"}, {"bytes": picture(20, 1), "path": None}],
    "rejected_images": [{"bytes": picture(30, 2), "path": None}],
    "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which shade?"}]}],
    "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "10"}]}],
    "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "20"}]}],
    "question_kind": "numeric",
    "negative_kind": "adversarial",
    "blind": "mask",
    "gain_chosen": 0.1 + 0.2,
    "gain_rejected": 5e-324,
    "token_gains_chosen": [1 / 3, -0.0, 1e300],
    "token_gains_rejected": [],
    **dict.fromkeys(("logprob_chosen", "logprob_rejected", "blind_logprob_chosen", "blind_logprob_rejected"), -math.pi),
}


def _table(rows: list[dict[str, Any]], record: type[records.Record]) -> Any:
    return tables.to_table(tables.check_rows(rows, record, where="here"), record)


def _read(data: bytes) -> list[dict[str, Any]]:
    file = tables.open_parquet(io.BytesIO(data), where="here")
    with tables.damage_named("here"):
        rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows


def test_columns_of_every_kind() -> None:
    class Every(records.Record):
        text: str
        count: int | None
        share: float
        flag: bool
        blob: records.Encoded
        kind: records.Kind
        picture: records.Image
        turns: list[records.Message]

    assert tables.columns_of(Every) == {
        "text": "string",
        "count": "int64",
        "share": "double",
        "flag": "bool",
        "blob": "binary",
        "kind": "string",
        "picture": "struct<bytes: binary, path: string>",
        "turns": "list<item: struct<role: string, content: list<item: struct<type: string, text: string>>>>",
    }


def test_a_type_without_a_column_is_refused() -> None:
    class Odd(records.Record):
        choice: int | str

    with pytest.raises(SchemaError, match=r"no column type \(Odd\.choice\)"):
        tables.arrow_schema(Odd)


def test_every_record_of_the_project_has_a_schema() -> None:
    found = [value for value in vars(records).values() if isinstance(value, type) and issubclass(value, records.Record)]
    assert len(found) >= 12
    assert all(list(tables.arrow_schema(record).names) == list(record.model_fields) for record in found)


def test_values_come_back_exactly() -> None:
    rows = _read(tables.encode(_table([PAIR], records.PreferencePair)))
    expected = records.PreferencePair.model_validate(PAIR).model_dump()
    assert rows == [expected]
    assert math.copysign(1, rows[0]["token_gains_chosen"][1]) == -1


def test_numpy_values_and_records_are_taken() -> None:
    row = {"step": np.int64(3), "loss": np.float32(0.5)}
    names = tables.columns_of(records.TrainingStep)
    row = dict.fromkeys(names, 0) | {"stopped": np.bool_(True)} | row
    checked = tables.check_rows([row], records.TrainingStep, where="here")
    assert (checked[0]["step"], checked[0]["loss"], checked[0]["stopped"]) == (3, 0.5, True)
    letter = records.Dropped(sample_id="a", stage="b", reason="c", detail="d", row="{}")
    assert tables.check_rows([letter], records.Dropped, where="here") == [letter.model_dump()]


def test_wrong_rows_are_named() -> None:
    good = sample(0)
    with pytest.raises(SchemaError, match=r"column kind of row 1: .*'shade'.*here.*a row of Sample"):
        tables.check_rows([good, good | {"kind": "shade"}], records.Sample, where="here")
    with pytest.raises(SchemaError, match=r"column answer of row 0: Field required"):
        tables.check_rows([{k: v for k, v in good.items() if k != "answer"}], records.Sample, where="here")
    with pytest.raises(SchemaError, match=r"column images\.0\.size of row 0: Extra inputs"):
        tables.check_rows([good | {"images": [{"bytes": b"", "size": 3}]}], records.Sample, where="here")


def test_equal_tables_give_equal_bytes_in_bounded_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [sample(index) for index in range(9)]
    assert tables.encode(_table(rows, records.Sample)) == tables.encode(_table(rows, records.Sample))
    table = _table(rows, records.Sample)
    monkeypatch.setattr(tables, "MAX_GROUP_BYTES", table.nbytes // 3)
    file = pq.ParquetFile(io.BytesIO(tables.encode(table)))
    metadata = file.metadata
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    ends = list(accumulate(group.num_rows for group in groups))
    assert ends[-1] == 9
    assert all(
        table.slice(end - group.num_rows, group.num_rows).nbytes <= tables.MAX_GROUP_BYTES
        for end, group in zip(ends, groups, strict=True)
    )
    assert 3 <= len(groups) < 9
    monkeypatch.setattr(tables, "MAX_GROUP_BYTES", 1)
    assert pq.ParquetFile(io.BytesIO(tables.encode(table))).metadata.num_row_groups == 9, "a row is never cut"
    assert groups[0].column(0).compression == "ZSTD"
    assert file.read().to_pylist() == table.to_pylist()


def test_no_rows_keep_their_columns() -> None:
    data = tables.encode(_table([], records.Sample))
    assert _read(data) == []
    assert pq.read_schema(io.BytesIO(data)).names == list(records.Sample.model_fields)


def test_a_flipped_bit_of_a_page_is_noticed() -> None:
    data = tables.encode(_table([sample(index) for index in range(3)], records.Sample))
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1)  # image bytes
    end = column.data_page_offset + column.total_compressed_size
    for at in range(end - 40, end, 7):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(DamagedArtifact, match=r"cannot be read.*\(here\).*Run the stage again"):
            _read(bytes(broken))
    with pytest.raises(DamagedArtifact):
        tables.open_parquet(io.BytesIO(data[: len(data) // 2]), where="here")


def test_seconds_are_volatile_and_so_is_what_only_watches() -> None:
    later = tables.later_columns(records.TrainingStep)
    assert tables.volatile_columns(records.TrainingStep) == {"seconds", "cpu_seconds", *later}
    assert "rollout_gap" in later
    assert not tables.later_columns(records.Sample)
    assert tables.volatile_columns(records.Sample) == frozenset()


def test_datasets_decodes_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    (tmp_path / "pairs.parquet").write_bytes(tables.encode(_table([PAIR], records.PreferencePair)))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "pairs.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    row = loaded[0]
    assert [image.getpixel((0, 0)) for image in row["images"]] == [(10, 1, 0), (20, 1, 0)]
    assert isinstance(row["rejected_images"][0], PIL.Image.Image)
    assert row["prompt"] == records.PreferencePair.model_validate(PAIR).model_dump()["prompt"]
    assert row["gain_chosen"] == 0.1 + 0.2
    assert loaded.features == datasets.Features.from_arrow_schema(tables.arrow_schema(records.PreferencePair))


def test_the_features_are_those_datasets_would_write() -> None:
    datasets = pytest.importorskip("datasets")
    schema = tables.arrow_schema(records.RolloutGroup)
    written = datasets.Features.from_arrow_schema(schema)
    inferred = datasets.Features.from_arrow_schema(schema.remove_metadata())
    assert written["completions"] == inferred["completions"], "types agree with what is inferred without metadata"
    assert written["images"] == datasets.List(datasets.Image())
    assert written.arrow_schema.remove_metadata() == schema.remove_metadata()


def test_pandas_reads_the_rows(tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(tables.encode(_table([PAIR], records.PreferencePair)))
    frame = pd.read_parquet(tmp_path / "pairs.parquet")
    assert list(frame.columns) == list(records.PreferencePair.model_fields)
    assert frame["images"][0][0]["bytes"] == PAIR["images"][0]["bytes"]
    assert frame["gain_chosen"][0] == 0.1 + 0.2
    assert pa.types.is_float64(pq.read_schema(tmp_path / "pairs.parquet").field("gain_chosen").type)
