"""Why a stage runs: typed causes with field, old and new value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mbpo_core import stages
from mbpo_core.config import PolicyConfig, RolloutsConfig, SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.execution import StagePlan, plan
from mbpo_core.planning import PENDING, CauseKind
from mbpo_core.records import Sample
from mbpo_core.stage import ArtifactRef, PolicyRef, StageSpec
from mbpo_core.store import Store
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, FITTING, STAGES, AnswersConfig, DrawingConfig, FittingConfig


def _told(planned: StagePlan) -> list[tuple[str, str, Any, Any]]:
    return [(str(cause.kind), cause.field, cause.old, cause.new) for cause in planned.causes]


def test_first_time_cached_and_changed_settings(store: Store) -> None:
    first = plan(store, DRAWING, DrawingConfig(), {})
    assert (first.status, _told(first)) == ("runs", [("MISSING", "artifact", None, first.digest)])
    ref = make(store, DRAWING)
    cached = plan(store, DRAWING, DrawingConfig(part_rows=9), {}, previous=ref)
    assert (cached.status, cached.causes, cached.ref) == ("cached", [], ref)
    assert cached.seconds_saved == store.reader(ref).manifest.seconds > 0
    changed = plan(store, DRAWING, DrawingConfig(shade=11, faint_every=4), {}, previous=ref)
    assert _told(changed) == [("CONFIG", "drawing.shade", 10, 11), ("CONFIG", "drawing.faint_every", 0, 4)]
    assert _told(plan(store, DRAWING, DrawingConfig(), {}, seed=1, previous=ref)) == [("SEED", "seed", 0, 1)]


def test_inputs_are_compared_by_content(store: Store) -> None:
    drawn, darker = make(store, DRAWING), make(store, DRAWING, shade=11)
    ref = make(store, ANSWERS, {"samples": drawn})
    planned = plan(store, ANSWERS, AnswersConfig(), {"samples": darker}, previous=ref)
    assert _told(planned) == [("INPUT", "inputs.samples", drawn.content, darker.content)]
    # A different way to the same rows: nothing after it runs again.
    same = make(store, DRAWING, max_dropped_share=0.6)
    assert same.digest != drawn.digest
    assert plan(store, ANSWERS, AnswersConfig(), {"samples": same}, previous=ref).status == "cached"


def test_an_input_that_is_not_made_yet_is_an_input_cause(store: Store) -> None:
    ref = make(store, ANSWERS, {"samples": make(store, DRAWING)})
    upstream = plan(store, DRAWING, DrawingConfig(shade=99), {})
    planned = plan(store, ANSWERS, AnswersConfig(), {"samples": upstream.expected()}, previous=ref)
    assert [(cause.kind, cause.new) for cause in planned.causes] == [(CauseKind.INPUT, PENDING + upstream.digest)]


def test_models_versions_and_rounds(store: Store, tmp_path: Path) -> None:
    base, other = (PolicyRef(folder=str(tmp_path), digest=digest) for digest in ("base", "other"))
    policy_config = PolicyConfig(model="here", dtype="float32")

    def planned(spec: StageSpec = FITTING, policy: PolicyRef = base, previous: Any = None, **options: Any) -> StagePlan:
        config = options.pop("policy_config", policy_config)
        return plan(store, spec, FittingConfig(), {}, {"policy": policy}, config, previous=previous, **options)

    ref = make(store, FITTING, policies={"policy": base}, policy_config=policy_config)
    elsewhere = PolicyConfig(model="moved", device="cpu")
    assert planned(previous=ref, policy_config=elsewhere).status == "cached", "where the model lies does not matter"
    half = PolicyConfig(model="here", dtype="bfloat16")
    assert _told(planned(previous=ref, policy_config=half)) == [("MODEL", "model.dtype", "float32", "bfloat16")]
    assert _told(planned(previous=ref, policy=other)) == [("MODEL", "policies.policy.digest", "base", "other")]
    newer = StageSpec(**{**vars(FITTING), "version": 2})
    assert _told(planned(newer, previous=ref)) == [("VERSION", "version", 1, 2)]
    assert _told(planned(previous=ref, rounds=3)) == [("CONFIG", "round.rounds", 1, 3)]


class SampleTwo(Sample):
    """A later schema."""

    schema_version: ClassVar[int] = 2
    licence: str = ""


def test_a_new_schema_is_a_schema_cause(store: Store) -> None:
    ref = make(store, DRAWING)
    newer = StageSpec(**{**vars(DRAWING), "record": SampleTwo})
    causes = _told(plan(store, newer, DrawingConfig(), {}, previous=ref))
    assert {kind for kind, *_ in causes} == {"SCHEMA"}
    assert ("SCHEMA", "schema.part.version", 1, 2) in causes


def test_a_reward_setting_is_a_reward_cause(store: Store) -> None:
    drawn = make(store, DRAWING)
    ref = make(store, ANSWERS, {"samples": drawn})
    planned = plan(store, ANSWERS, AnswersConfig(format_reward=0.3), {"samples": drawn}, previous=ref)
    assert _told(planned) == [("REWARD", "answers.format_reward", 0.2, 0.3)]


def test_verifier_versions_are_part_of_what_rollouts_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mbpo_core.verifiers import registry

    store = Store(tmp_path)
    samples = ArtifactRef(stage="samples", digest="d", content="c", uri="")
    before = plan(store, stages.ROLLOUTS, RolloutsConfig(), {"samples": samples})
    assert before.identity["verifiers"] == registry.versions()
    monkeypatch.setattr(registry, "versions", lambda: {"yes_no": 99})
    assert plan(store, stages.ROLLOUTS, RolloutsConfig(), {"samples": samples}).digest != before.digest


def test_a_deleted_artifact_is_missing(store: Store) -> None:
    ref = make(store, DRAWING)
    store.files.remove(store.base("drawing", ref.digest))
    planned = plan(store, DRAWING, DrawingConfig(), {}, previous=ref)
    assert _told(planned) == [("MISSING", "artifact", ref.digest, ref.digest)]
    changed = plan(store, DRAWING, DrawingConfig(shade=1), {}, previous=ref)
    assert _told(changed) == [("MISSING", "artifact", ref.digest, changed.digest)]


def test_new_files_in_an_input_folder_are_seen_and_its_place_does_not_matter(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "input"
    (folder / "images").mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"image": "images/a.png"}\n{"image": "images/b.png"}\n')
    (folder / "images" / "a.png").write_bytes(b"picture")
    (folder / "notes.txt").write_text("not read")

    def planned(path: Path) -> StagePlan:
        return plan(store, stages.SAMPLES, SamplesConfig(source="jsonl", path=str(path / "rows.jsonl")), {})

    first = planned(folder)
    (folder / "notes.txt").write_text("changed")
    assert planned(folder).digest == first.digest, "only the file and the pictures it names count"
    moved = folder.rename(tmp_path / "moved")
    assert planned(moved).digest == first.digest
    (moved / "images" / "a.png").write_bytes(b"another")
    changed = planned(moved)
    assert changed.digest != first.digest
    assert changed.identity["external"]["image_root"]["files"] == 1
    (moved / "images" / "c.png").write_bytes(b"not named")
    assert planned(moved).digest == changed.digest
    (moved / "images" / "b.png").write_bytes(b"named, and now there")
    assert planned(moved).identity["external"]["image_root"] != changed.identity["external"]["image_root"]


def test_an_edit_that_keeps_size_and_mtime_is_seen(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "store"), tmp_path / "rows.jsonl"
    file.write_bytes(b'{"image": "a.png"}')
    os.utime(file, (1_000_000, 1_000_000))

    def digest() -> str:
        return plan(store, stages.SAMPLES, SamplesConfig(source="jsonl", path=str(file)), {}).digest

    first = digest()
    file.write_bytes(b'{"image": "b.png"}')
    os.utime(file, (1_000_000, 1_000_000))
    assert digest() != first


def test_a_missing_input_is_named_before_anything_runs(tmp_path: Path) -> None:
    config = SamplesConfig(source="parquet", path=str(tmp_path / "none.parquet"))
    with pytest.raises(DataError, match=r"none\.parquet' does not exist \(samples\.path\).*Correct samples\.path"):
        plan(Store(tmp_path / "store"), stages.SAMPLES, config, {})
    assert not (tmp_path / "store").exists(), "planning wrote nothing"


def test_the_demo_reads_nothing_from_outside(tmp_path: Path) -> None:
    assert plan(Store(tmp_path), stages.SAMPLES, SamplesConfig(), {}).identity["external"] == {}


def test_stages_table_and_fakes_agree_on_keys(store: Store) -> None:
    assert plan(store, FITTING, FittingConfig(), {}, round_index=2).key == "fitting/2"
    assert plan(store, DRAWING, DrawingConfig(), {}).key == "drawing"
    assert set(STAGES) == {"drawing", "answers", "fitting"}
