"""Artifacts of an older schema: migrated row by row, or refused with the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from mbpo_core.errors import SchemaError
from mbpo_core.records import Image, Kind, Record, Sample, Split, watched
from mbpo_core.stage import StageSpec
from mbpo_core.store import Store, migration, migrations
from tests.execution.conftest import make
from tests.execution.fakes import DRAWING, STAGES


class SampleThree(Record):
    """What Sample might become: a column renamed, one gone, one new."""

    schema_version: ClassVar[int] = 3

    sample_id: str
    images: list[Image]
    prompt: str
    answer: str
    kind: Kind
    split: Split
    source: str
    licence: str


NEWER = StageSpec(**{**vars(DRAWING), "record": SampleThree})


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    known: dict[Any, Any] = {}
    monkeypatch.setattr(migrations, "_MIGRATIONS", known)
    return known


def test_an_older_artifact_is_refused_with_the_difference(tmp_path: Path, registry: dict[Any, Any]) -> None:
    ref = make(Store(tmp_path, stages=STAGES), DRAWING)
    reader = Store(tmp_path, stages={"drawing": NEWER}).reader(ref)
    with pytest.raises(SchemaError) as caught:
        reader.count()
    assert str(caught.value) == (
        "the table was written as Sample version 1: it lacks prompt, it lacks licence, it has question, it has "
        f"answer_form, it has choices, it has rejected, it has meta (drawing artifact {ref.digest[:12]}, table part); "
        "expected SampleThree version 3. Run the stage again, or register a migration (mbpo_core/store/migrations.py)."
    )


def test_registered_steps_are_applied_in_order(tmp_path: Path, registry: dict[Any, Any]) -> None:
    @migration("Sample", 1)
    def rename(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if name != "question"} | {"prompt": row["question"]}

    ref = make(Store(tmp_path, stages=STAGES), DRAWING)
    store = Store(tmp_path, stages={"drawing": NEWER})
    with pytest.raises(SchemaError, match="it lacks prompt"):
        store.reader(ref).count()

    @migration("Sample", 2)
    def reshape(row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: row[name] for name in SampleThree.model_fields if name in row}
        return kept | {"licence": f"as {row['source']}"}

    reader = store.reader(ref)
    rows = list(reader.rows())
    assert [SampleThree.model_validate(row).prompt for row in rows] == ["Which shade?"] * 10
    assert reader.slice(4, 5, columns=["licence", "sample_id"]) == [{"licence": "as fake", "sample_id": "s004"}]
    assert reader.where("licence", ["as fake"]).count() == 10


def test_today_s_schema_needs_no_migration(tmp_path: Path, registry: dict[Any, Any]) -> None:
    @migration("Sample", 1)
    def never(row: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("not called")

    store = Store(tmp_path, stages=STAGES)
    assert Sample.model_validate(store.reader(make(store, DRAWING)).slice(0, 1)[0]).sample_id == "s000"


class SampleWatched(Sample):
    """A sample with a column that came later and only watches."""

    blur: float | None = watched("How sharp the picture is.")


def test_a_column_that_only_watches_changes_no_identity_and_is_null_in_older_rows(tmp_path: Path) -> None:
    SampleWatched.__name__ = "Sample"
    later = StageSpec(**{**vars(DRAWING), "record": SampleWatched})
    old = make(Store(tmp_path / "old", stages=STAGES), DRAWING)
    reader = Store(tmp_path / "old", stages={"drawing": later}).reader(old)
    assert reader.slice(4, 5, columns=["sample_id", "blur"]) == [{"sample_id": "s004", "blur": None}]
    assert [SampleWatched.model_validate(row).blur for row in reader.rows()] == [None] * 10
    new = make(Store(tmp_path / "new", stages={"drawing": later}), later)
    assert (new.digest, new.content) == (old.digest, old.content)
