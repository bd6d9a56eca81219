"""Several processes: the same result, errors that keep their name, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbpo_core.errors import ModelError, WorkerFailed
from mbpo_core.training.job import Job, JobRows, read_job, write_job
from mbpo_core.training.launch import launch
from mbpo_core.training.rows import ListTable
from tests.training.conftest import Recorder, collect, trained
from tests.training.rows import job
from tests.training.test_accumulation import UNCLIPPED, apart, moments

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


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
    settings = {"pairs_per_step": 3, "groups_per_step": 4, "micro_groups": 1, "max_grad_norm": UNCLIPPED, "epochs": 2}
    settings["checkpoint_every"] = 100
    three = JobRows(ListTable(rows.pairs.content[:3]), rows.rollouts, [2, 0, 1])
    one = trained(job(tmp_path / "one", **settings), three)
    two = job(tmp_path / "two", processes=2, **settings)
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


@linux
def test_a_cancelled_run_leaves_nobody_behind(rows: JobRows, tmp_path: Path) -> None:
    class Cancelled(Recorder):
        def start(self, description: str, total: int) -> None:
            assert len(alive(work)) >= 3  # the launcher and two workers
            raise KeyboardInterrupt

    work = job(tmp_path, processes=2, epochs=50)
    with pytest.raises(KeyboardInterrupt):
        launch(work, rows, Cancelled())
    assert gone_within(work, 5)


def test_an_error_of_ours_keeps_its_name(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path, processes=2).model_copy(update={"policy": str(tmp_path / "nowhere")})
    with pytest.raises(ModelError, match=r"folder does not exist \(.*nowhere\)"):
        launch(work, rows, Recorder())


@linux
def test_time_out_kills_and_shows_the_log(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path, processes=2, timeout_s=1)
    with pytest.raises(WorkerFailed, match=r"longer than training.timeout_s = 1 s .*log"):
        launch(work, rows, Recorder())
    assert gone_within(work, 5)


@linux
def test_workers_die_with_a_killed_parent(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path / "work", processes=2, epochs=50)
    write_job(tmp_path / "handed", work, rows)
    script = (
        "import sys; from pathlib import Path; from mbpo_core.training.job import read_job;"
        "from mbpo_core.training.launch import launch; from mbpo_core.progress import NullProgress;"
        "launch(*read_job(Path(sys.argv[1])), NullProgress())"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "handed")])
    try:
        log = Path(work.work) / "job" / "rank-1.log"  # a worker's first act
        deadline = time.monotonic() + 120
        while not log.exists() and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert log.exists()
        os.kill(parent.pid, signal.SIGKILL)
        assert gone_within(work, 10)
    finally:
        parent.kill()
        parent.wait()


def test_a_job_survives_the_hand_over(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path / "work", beta=0.03)
    write_job(tmp_path / "handed", work, rows)
    again, read = read_job(tmp_path / "handed")
    assert again == work
    assert again.fingerprint(read) == work.fingerprint(rows)
    assert list(read.pairs.rows(columns=list(rows.pairs.content[0]))) == rows.pairs.content
    columns = [name for name in rows.rollouts.content[0] if name != "policy_digest"]
    assert list(read.rollouts.rows(columns=columns)) == list(rows.rollouts.rows(columns=columns))
