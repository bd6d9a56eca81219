"""Running stages and reading what they made, in a folder and in memory alike."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DataError, ModelError, SchemaError, StoreError
from mbpo_core.execution import checkpoint_policy, execute, plan
from mbpo_core.progress import NullProgress
from mbpo_core.stage import External, PolicyRef, StageSpec
from mbpo_core.store import Store
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, FITTING, STAGES, AnswersConfig, DrawingConfig, FittingConfig, sample


def test_rows_come_back_in_order_and_exact(store: Store) -> None:
    ref = make(store, DRAWING, shade=40, seed=3)
    reader = store.reader(ref)
    assert reader.count() == 10
    assert list(reader.rows(columns=["sample_id"])) == [{"sample_id": f"s{i:03d}"} for i in range(10)]
    first = reader.slice(0, 1)[0]
    expected = sample(0, 40, 3)
    assert first == expected | {"answer_form": "free", "choices": [], "rejected": None, "meta": '{"t": 0}'}
    assert [row["sample_id"] for row in reader.slice(3, 6)] == ["s003", "s004", "s005"], "over the edge of a part"
    assert reader.slice(8, 99, columns=["source"]) == [{"source": "fake"}] * 2


def test_dropped_rows_are_a_table_with_counts(store: Store) -> None:
    reader = store.reader(make(store, DRAWING, bad_every=5, faint_every=4))
    assert [row["sample_id"] for row in reader.rows()] == ["s002", "s003", "s004", "s006", "s007", "s008"]
    letters = list(reader.rows("dropped"))
    assert [(row["sample_id"], row["reason"]) for row in letters] == [
        ("s000", "unreadable_image"),
        ("s001", "faint"),
        ("s005", "unreadable_image"),
        ("s009", "faint"),
    ]
    assert reader.manifest.dropped == {"unreadable_image": 2, "faint": 2}
    assert (reader.manifest.total, reader.count("dropped")) == (10, 4)


def test_a_view_keeps_order_and_can_be_narrowed(store: Store) -> None:
    reader = store.reader(make(store, DRAWING, part_rows=3))
    view = reader.where("sample_id", ["s008", "s001", "s002", "s005"])
    ids = ["s001", "s002", "s005", "s008"]
    assert (view.count(), [row["sample_id"] for row in view.rows()]) == (4, ids)
    assert [row["sample_id"] for row in view.slice(1, 3)] == ids[1:3]
    assert [row["sample_id"] for row in view.where("sample_id", ["s005", "s009"]).rows()] == ["s005"]
    assert reader.where("split", ["eval"]).count() == 0
    assert list(reader.where("split", ["eval"]).rows()) == []


def test_further_tables_files_and_what_is_not_there(store: Store) -> None:
    reader = store.reader(make(store, ANSWERS, {"samples": make(store, DRAWING)}))
    assert (reader.count(), reader.count("all")) == (9, 10)
    assert reader.json("summary.json") == {"answers": 10, "reward": 0.2}
    assert reader.text("pages/index.html") == "<p>é</p>"
    with pytest.raises(StoreError, match=r"no table 'best'.*one of part, all, dropped"):
        reader.count("best")
    with pytest.raises(StoreError, match=r"no file 'other\.json'"):
        reader.json("other.json")
    with pytest.raises(SchemaError, match="no column colour"):
        reader.slice(0, 1, columns=["colour"])


def test_a_checkpoint_is_a_local_folder_and_a_policy(store: Store, tmp_path: Path) -> None:
    base = PolicyRef(folder=str(tmp_path), digest="base")
    ref = make(store, FITTING, policies={"policy": base}, policy_config=PolicyConfig())
    assert store.reader(ref).folder("checkpoint").joinpath("deep/model.safetensors").read_text().startswith("0 0 ")
    policy = checkpoint_policy(ref, "trained")
    assert store.open_policy(policy) == store.reader(ref).folder("checkpoint")
    again = make(store, FITTING, policies={"policy": policy}, policy_config=PolicyConfig(), round_index=1, rounds=2)
    assert again.key == "fitting/1"
    with pytest.raises(ModelError, match="no model folder"):
        store.open_policy(PolicyRef(folder=str(tmp_path / "none"), digest="x"))
    with pytest.raises(StoreError, match="no folder 'weights'"):
        store.reader(ref).folder("weights")


def test_time_and_resumable_state_do_not_count_as_content(tmp_path: Path) -> None:
    base = PolicyRef(folder=str(tmp_path), digest="base")
    stores = [Store(tmp_path / name, stages=STAGES) for name in ("a", "b")]
    refs = [make(store, FITTING, policies={"policy": base}, policy_config=PolicyConfig()) for store in stores]
    readers = [store.reader(ref) for store, ref in zip(stores, refs, strict=True)]
    assert readers[0].slice(0, 1)[0]["seconds"] != readers[1].slice(0, 1)[0]["seconds"]
    states = [reader.folder("optimizer").joinpath("state.pt").read_bytes() for reader in readers]
    assert states[0] != states[1]
    assert refs[0].content == refs[1].content
    other = make(stores[0], FITTING, steps=4, policies={"policy": base}, policy_config=PolicyConfig())
    assert other.content != refs[0].content


def test_content_does_not_depend_on_part_size_or_place(tmp_path: Path) -> None:
    contents = set()
    for number, (part_rows, batch_size) in enumerate([(4, 1), (3, 1), (100, 1), (1, 5)]):
        root = f"memory://parts{number}" if number % 2 else tmp_path / str(number)
        store = Store(root, stages=STAGES)
        options = {"part_rows": part_rows, "batch_size": batch_size, "bad_every": 5}
        drawn = make(store, DRAWING, **options)
        contents.add((drawn.content, make(store, ANSWERS, {"samples": drawn}, part_rows=part_rows).content))
    assert len(contents) == 1


def test_parts_hold_whole_batches(store: Store) -> None:
    reader = store.reader(make(store, DRAWING, part_rows=5, batch_size=4))
    assert [(part.start, part.stop) for part in reader.manifest.parts] == [(0, 8), (8, 10)]


def test_equal_identity_is_computed_once(store: Store, computed: list[int]) -> None:
    first = make(store, DRAWING)
    assert make(store, DRAWING, part_rows=7) == first
    assert len(computed) == 10
    assert make(store, DRAWING, shade=11).digest != first.digest


def test_the_manifest_says_what_went_in_and_came_out(local_store: Store) -> None:
    drawn = make(local_store, DRAWING)
    ref = make(local_store, ANSWERS, {"samples": drawn}, seed=7, part_rows=6)
    manifest = json.loads(Path(ref.uri, "manifest.json").read_text())
    assert manifest["identity"]["inputs"] == {"samples": drawn.content}
    assert manifest["identity"]["seed"] == 7
    assert manifest["inputs"]["samples"]["digest"] == drawn.digest
    assert manifest["config"] == {"format_reward": 0.2, "part_rows": 6}
    assert "part_rows" not in manifest["identity"]["config"]
    assert manifest["rows"] == {"part": 9, "all": 10}
    assert manifest["libraries"]["pyarrow"]
    assert "pid" in manifest["by"]
    for part in manifest["parts"]:
        data = Path(ref.uri, part["file"]["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == part["file"]["sha256"]
    assert not Path(ref.uri, "lease.json").exists()
    assert not list(Path(local_store.root).glob("scratch/*/*"))


def test_stage_bugs_are_named(store: Store) -> None:
    lost = StageSpec(**{**vars(DRAWING), "name": "lost", "entry": "tests.execution.fakes:forget_a_part"})
    with pytest.raises(StoreError, match=r"2 parts of table part were never finished, first 1"):
        make(store, lost)
    silent = StageSpec(**{**vars(DRAWING), "name": "silent", "entry": "tests.execution.fakes:do_nothing"})
    with pytest.raises(StoreError, match="without writing its main table"):
        make(store, silent)
    odd = StageSpec(**{**vars(DRAWING), "name": "odd", "entry": "tests.execution.fakes:misspell"})
    with pytest.raises(SchemaError, match=r"column colour of row 0.*Extra inputs"):
        make(store, odd)
    with pytest.raises(StoreError, match="does not read pairs"):
        make(store, ANSWERS, {"pairs": make(store, DRAWING)})


def test_an_input_that_changes_while_it_is_read_stops_the_stage(local_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "input.txt"
    file.write_text("before")
    spec = StageSpec(**{**vars(DRAWING), "external": lambda config: {"shade": External(file)}})
    planned = plan(local_store, spec, DrawingConfig(), {})
    file.write_text("after")
    with pytest.raises(DataError, match="changed while it was read"):
        execute(local_store, planned, NullProgress(), spec=spec)
    assert not local_store.is_committed("drawing", planned.digest)


def test_a_plan_crosses_processes_as_json(local_store: Store, tmp_path: Path) -> None:
    drawn = make(local_store, DRAWING)
    policies = {"policy": PolicyRef(folder=str(tmp_path), digest="base")}
    answers = make(local_store, ANSWERS, {"samples": drawn})
    planned = plan(local_store, FITTING, FittingConfig(), {"answers/0": answers}, policies, PolicyConfig(), 5)
    copied = type(planned).model_validate_json(planned.model_dump_json())
    assert execute(local_store, copied, NullProgress()) == execute(
        local_store, plan(local_store, FITTING, FittingConfig(), {"answers/0": answers}, policies, PolicyConfig(), 5)
    )


def test_reward_settings_of_another_section_are_kept_apart(store: Store) -> None:
    drawn = make(store, DRAWING)
    assert (
        make(store, ANSWERS, {"samples": drawn}).digest
        != plan(store, ANSWERS, AnswersConfig(format_reward=0.3), {"samples": drawn}).digest
    )
