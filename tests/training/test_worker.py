"""Several processes: the same result, errors that keep their name, and nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import LaunchConfig
from mbpo_core.errors import ModelError, WorkerFailed
from mbpo_core.launching.supervisor import Supervisor
from mbpo_core.stage import Progress
from mbpo_core.training.job import Job, JobRows, read_job, write_job
from mbpo_core.training.rows import ListTable
from mbpo_core.training.stage import train_in
from tests.training.conftest import Recorder, Trained, collect, trained
from tests.training.rows import job
from tests.training.test_accumulation import UNCLIPPED, apart, moments
from tests.training.test_resume import assert_equal, state_tensors

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture(autouse=True)
def node_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's shared folder, of this test alone."""
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))


def launch(job: Job, rows: JobRows, progress: Progress, processes: int = 2) -> None:
    """Train in processes of their own."""
    train_in(Supervisor(LaunchConfig(processes=processes)), job, rows, progress)


def alive(work: Job) -> list[int]:
    """Processes whose command line names the job's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        if entry.name.isdigit() and work.work.encode() in command and state != "Z":
            found.append(int(entry.name))
    return found


def gone_within(work: Job, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(work) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(work)


@linux
def test_two_processes_end_where_one_does(rows: JobRows, tmp_path: Path) -> None:
    # Three pairs a step for two processes: one of them repeats a group that must not count.
    settings: dict[str, Any] = {
        "pairs_per_step": 3,
        "groups_per_step": 4,
        "micro_groups": 1,
        "max_grad_norm": UNCLIPPED,
        "epochs": 2,
    }
    settings["checkpoint_every"] = 100
    settings["normalization"] = "token"  # over the tokens of both
    three = JobRows(ListTable(rows.pairs.content[:3]), rows.rollouts, [2, 0, 1])
    one = trained(job(tmp_path / "one", **settings), three)
    two = job(tmp_path / "two", **settings)
    progress = Recorder()
    launch(two, three, progress)
    both = collect(two, progress)
    assert apart(moments(both), moments(one)) < 1e-4
    for ours, theirs in zip(both.metrics, one.metrics, strict=True):
        numbers = {name: value for name, value in theirs.items() if value is not None}
        assert {name: ours[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)
        assert all(ours[name] is None for name in theirs.keys() - numbers.keys())
    assert progress.started == one.progress.started
    assert len(progress.figures) == len(one.progress.figures)
    assert both.summary.keys() == one.summary.keys()
    for name, value in one.summary.items():
        close = isinstance(value, float)
        assert both.summary[name] == (pytest.approx(value, rel=1e-4, abs=1e-6) if close else value), name
    assert gone_within(two, 5)


@pytest.mark.slow
def test_one_worker_ends_bit_by_bit_where_this_process_does(rows: JobRows, tmp_path: Path) -> None:
    here, there, progress = trained(job(tmp_path / "here"), rows), job(tmp_path / "there"), Recorder()
    launch(there, rows, progress, processes=1)
    worker = collect(there, progress)
    assert worker.metrics == here.metrics
    assert (worker.summary, progress.started) == (here.summary, here.progress.started)
    assert_equal(worker.weights, here.weights)
    assert_equal(state_tensors(worker), state_tensors(here))


@pytest.mark.slow
@linux
def test_a_cancelled_run_leaves_nobody_behind(rows: JobRows, tmp_path: Path) -> None:
    class Cancelled(Recorder):
        def start(self, description: str, total: int, done: int = 0) -> None:
            assert len(alive(work)) >= 3  # the launcher and two workers
            raise KeyboardInterrupt

    work = job(tmp_path, epochs=50)
    with pytest.raises(KeyboardInterrupt):
        launch(work, rows, Cancelled())
    assert gone_within(work, 5)


def test_an_error_of_ours_keeps_its_name(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path).model_copy(update={"policy": str(tmp_path / "nowhere")})
    with pytest.raises(ModelError, match=r"folder does not exist \(.*nowhere\)"):
        launch(work, rows, Recorder())


def ranks(work: Job) -> list[int]:
    """The workers among them, without their launcher."""
    found = []
    for number in alive(work):
        command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        found += [number] if b"launch" not in command else []
    return found


@linux
@pytest.mark.slow
def test_a_killed_rank_is_made_good_bit_by_bit(rows: JobRows, tmp_path: Path) -> None:
    settings = {"pairs_per_step": 2, "groups_per_step": 2, "epochs": 3, "checkpoint_every": 2, "warmup_steps": 10}
    whole, torn = job(tmp_path / "whole", **settings), job(tmp_path / "torn", **settings)

    class Killing(Recorder):
        def advance(self, count: int = 1, **figures: float) -> None:
            super().advance(count, **figures)
            if len(self.figures) == 3 and (there := ranks(torn)):  # after a checkpoint, before the next one
                os.kill(there[-1], signal.SIGKILL)

    with pytest.raises(WorkerFailed, match="unfinished: rank"):
        launch(torn, rows, Killing())
    assert gone_within(torn, 5)
    results: list[Trained] = []
    for work in (whole, torn):
        progress = Recorder()
        launch(work, rows, progress)
        results.append(collect(work, progress))
    uninterrupted, resumed = results
    assert len(uninterrupted.progress.figures) == 6
    assert len(resumed.progress.figures) < 6, "it goes on at its last checkpoint"
    assert resumed.metrics == uninterrupted.metrics
    assert resumed.summary == uninterrupted.summary
    assert_equal(resumed.weights, uninterrupted.weights)
    assert_equal(state_tensors(resumed), state_tensors(uninterrupted))


def test_a_job_survives_the_hand_over(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path / "work", beta=0.03)
    write_job(tmp_path / "handed", work, rows)
    again, read = read_job(tmp_path / "handed")
    assert again == work
    assert again.fingerprint(read) == work.fingerprint(rows)
    assert list(read.pairs.rows(columns=list(rows.pairs.content[0]))) == rows.pairs.content
    columns = [name for name in rows.rollouts.content[0] if name != "policy_digest"]
    assert list(read.rollouts.rows(columns=columns)) == list(rows.rollouts.rows(columns=columns))
