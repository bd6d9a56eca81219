"""What TensorBoard and Weights & Biases show is what the metrics Parquet holds, a step once, and nothing by default."""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from mbpo_core.config import LaunchConfig, PipelineConfig, TrainingConfig
from mbpo_core.errors import ConfigError
from mbpo_core.execution import execute, plan
from mbpo_core.launching.supervisor import Supervisor
from mbpo_core.progress import NullProgress
from mbpo_core.records import TrainingStep
from mbpo_core.stage import PolicyRef
from mbpo_core.stages import TRAINING
from mbpo_core.store import Store
from mbpo_core.training.job import Job, JobRows
from mbpo_core.training.loop import train
from mbpo_core.training.monitoring import Monitors, monitors_of, watching
from mbpo_core.training.stage import train_in
from tasks.run import Run, expect
from tasks.training import train_policy
from tests.training.conftest import Recorder, Trained, collect, trained
from tests.training.rows import POLICY, job
from tests.training.test_stage import Pipeline

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record

KEY = "WANDB_API_KEY"
SETTINGS: dict[str, Any] = {"pairs_per_step": 1, "groups_per_step": 1, "epochs": 2, "checkpoint_every": 3}

Curves = dict[str, dict[int, float]]  # by name, by step


def columns(rows: list[TrainingStep]) -> Curves:
    """The curves that rows of metrics amount to."""
    curves: Curves = {}
    for row in rows:
        for name, value in row.model_dump(exclude={"step"}).items():
            if value is not None:
                curves.setdefault(name, {})[row.step] = float(value)
    return curves


def events(folder: Path) -> Curves:
    """The scalars of a folder's event files; a step that is there twice fails here."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    curves: Curves = {}
    for name in accumulator.Tags()["scalars"]:
        points = accumulator.Scalars(name)
        curves[name] = {point.step: point.value for point in points}
        assert len(curves[name]) == len(points)
    return curves


def sent(folder: Path) -> tuple[Curves, dict[str, Any]]:
    """(history, settings) of the one run that an offline folder of Weights & Biases holds."""
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    curves: Curves = {}
    settings: dict[str, Any] = {}
    for record in offline_records(file.read_bytes()):
        settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for name, value in row.items():
            if not name.startswith("_"):
                assert row["_step"] not in curves.setdefault(name, {})
                curves[name][row["_step"]] = value
    return curves, settings


def offline_records(data: bytes) -> list[Record]:
    """Records of LevelDB's log format: blocks of 32 KiB, and pieces with checksum (4), length (2) and kind (1)."""
    from wandb.proto.wandb_internal_pb2 import Record  # all of wandb comes along: four seconds

    records, whole, place = [], b"", 7  # past the file's own header
    while place < len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768  # the rest of a block that is too short for a header
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a record in one piece, or its last piece
            records.append(Record.FromString(whole))
            whole = b""
    return records


def assert_close(shown: Curves, rows: list[TrainingStep]) -> None:
    """As TensorBoard keeps them, in float32."""
    expected = columns(rows)
    assert shown.keys() == expected.keys()
    for name, points in expected.items():
        assert shown[name] == {step: float(np.float32(value)) for step, value in points.items()}, name


def watched(work: Path, name: str = "demo/training/0", **settings: Any) -> Job:
    """A job that both monitors watch."""
    folders = {"tensorboard": str(work / "events"), "wandb": str(work / "wandb")}
    monitors = Monitors(name=name, wandb_project="probe", **folders)
    return job(work / "work", **settings).model_copy(update={"monitors": monitors})


@pytest.fixture(scope="module")
def killed(rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A watched round that was killed twice between checkpoints, and where its curves are."""
    work = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "0123456789abcdef" * 3)
        for moment in (5, 4):
            with pytest.raises(KeyboardInterrupt):
                trained(watched(work, **SETTINGS), rows, Recorder(interrupt_at=moment))
        return trained(watched(work, **SETTINGS), rows), work


def test_event_file_holds_each_step_of_the_metrics_once(killed: tuple[Trained, Path]) -> None:
    result, work = killed
    assert [row.step for row in result.state.rows] == list(range(1, 9))
    assert_close(events(work / "events" / "demo/training/0"), result.state.rows)
    assert [path.name for path in (work / "events").iterdir()] == ["demo"]


def test_offline_run_holds_each_step_of_the_metrics_once(killed: tuple[Trained, Path]) -> None:
    result, work = killed
    history, settings = sent(work / "wandb")
    assert history == columns(result.state.rows)
    assert settings["learning_rate"] == result.job.config.learning_rate
    assert settings["seed"] == result.job.seed
    assert "tensorboard" not in settings


def test_no_secret_is_written(killed: tuple[Trained, Path]) -> None:
    written = [path for path in killed[1].rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert len(written) > 5
    assert [path for path in written if b"0123456789abcdef" * 3 in path.read_bytes()] == []


def test_watching_changes_nothing(killed: tuple[Trained, Path], rows: JobRows, tmp_path: Path) -> None:
    plain = trained(job(tmp_path, **SETTINGS), rows)
    assert plain.metrics == killed[0].metrics
    assert plain.job.fingerprint(rows) == killed[0].job.fingerprint(rows)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "result"}


def test_a_viewer_sees_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monitors = Monitors(name="demo/training/0", tensorboard=str(tmp_path))
    steps = [step(number) for number in (1, 2, 3)]
    viewer = EventAccumulator(str(tmp_path / monitors.name))
    with watching(monitors) as watch:
        for row in steps:
            watch.write(row)
        viewer.Reload()
        assert [point.step for point in viewer.Scalars("loss")] == [1, 2, 3]  # written at once, not at the end
    later = time.time() + 60  # viewers go by the time in a file's name
    monkeypatch.setattr(time, "time", lambda: later)
    with watching(monitors, steps[:1]) as watch:
        watch.write(steps[1])
        viewer.Reload()  # was looking at the first file
    assert [point.step for point in viewer.Scalars("loss")] == [1, 2]


def test_a_second_round_is_a_run_of_its_own(tmp_path: Path) -> None:
    for number in (0, 1):
        with watching(Monitors(name=f"demo/training/{number}", tensorboard=str(tmp_path))) as watch:
            watch.write(step(number + 1))
    runs = sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("events.*"))
    assert runs == ["demo/training/0", "demo/training/1"]


@pytest.mark.slow
def test_only_the_first_process_writes(rows: JobRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))
    folder = tmp_path / "events"
    two = job(tmp_path / "two", zero_stage=0).model_copy(update={"monitors": Monitors(tensorboard=str(folder))})
    train_in(Supervisor(LaunchConfig(processes=2)), two, rows, Recorder())
    [file] = folder.iterdir()
    assert sum(event.HasField("session_log") for event in EventFileLoader(str(file)).Load()) == 1
    assert_close(events(folder), collect(two, Recorder()).state.rows)


def test_a_stage_writes_below_the_folder_and_its_artifact_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_MONITORS", str(tmp_path))
    pipeline = Pipeline(f"memory://{uuid.uuid4().hex}")
    plain = pipeline.train()
    assert list(tmp_path.iterdir()) == []  # off by default
    assert pipeline.train(tensorboard="curves") == plain  # no part of the identity: it is there already
    store, manifest = pipeline.store, pipeline.store.reader(plain).manifest
    planned = plan(
        store,
        TRAINING,
        TrainingConfig.model_validate(manifest.config | {"tensorboard": "curves"}),
        manifest.inputs,
        manifest.policies,
        POLICY,
        rounds=2,
        force=True,
        run="demo",
    )
    again = execute(store, planned, NullProgress())
    assert (again.digest, again.content) == (plain.digest, plain.content)
    assert_close(events(tmp_path / "curves/demo/training/0"), pipeline.steps(again))


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_refused_before_a_model_is_loaded(
    package: str, rows: JobRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = job(tmp_path).model_copy(
        update={"policy": str(tmp_path / "no model"), "monitors": Monitors(**{package: str(tmp_path / "curves")})}
    )
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=rf"{package} is not installed.*pip install 'mbpo\[{package}\]'"):
        train(nowhere, rows, Recorder())
    with pytest.raises(ConfigError, match="not installed"):
        monitors_of(TrainingConfig(**{package: "curves"}))
    assert not (tmp_path / "curves").exists()


@pytest.mark.parametrize("folder", ["/elsewhere", "../elsewhere", "curves/../../elsewhere", "out"])
def test_a_folder_outside_is_refused(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    monkeypatch.setenv("MBPO_MONITORS", str(tmp_path / "root"))
    with pytest.raises(ConfigError, match=r"leads out of .*MBPO_MONITORS"):
        monitors_of(TrainingConfig(wandb=folder))
    inside = monitors_of(TrainingConfig(wandb=str(tmp_path / "root" / "mine")))
    assert inside.wandb == str(tmp_path / "root" / "mine")


def test_a_run_hands_its_name_on_and_is_refused_when_it_is_planned(tmp_path: Path) -> None:
    run = Run(PipelineConfig(run="demo", method="mbpo"), Store(tmp_path), perform=expect)
    run.stage("samples")
    assert run.plans[0].request.run == "demo"
    out = PipelineConfig.model_validate({"run": "demo", "method": "mbpo", "training": {"tensorboard": "/elsewhere"}})
    base = PolicyRef(folder=str(tmp_path / "no model"), digest="0")
    with pytest.raises(ConfigError, match="leads out of"):
        train_policy(Run(out, Store(tmp_path), perform=expect), base, base, None, None, None, 0)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="cannot make the folder for curves"),
        watching(Monitors(tensorboard=str(tmp_path / "file" / "curves"))),
    ):
        pass


def step(number: int) -> TrainingStep:
    """A row of metrics, every number of it the step's."""
    values = {name: None if number == 2 and name == "kl" else number for name in TrainingStep.model_fields}
    return TrainingStep.model_validate({**values, "stopped": False})
