"""Killed, failed and repeated attempts end as an uninterrupted one does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mbpo_core.errors import LeaseHeld, StoreError
from mbpo_core.execution import execute, plan
from mbpo_core.progress import NullProgress
from mbpo_core.stage import StageSpec
from mbpo_core.store import Store
from mbpo_core.store.attempts import attempts
from mbpo_core.store.digests import code_digest
from tests.execution.conftest import make
from tests.execution.fakes import ANSWERS, DRAWING, STAGES, AnswersConfig, DrawingConfig

_KILLED = """
import sys
from tests.execution.conftest import make
from tests.execution.fakes import DRAWING, STAGES
from mbpo_core.store import Store
store, pause_s = Store(sys.argv[1], stages=STAGES), float(sys.argv[3])
make(store, DRAWING, die_at=int(sys.argv[2]), bad_every=5, pause_s=pause_s)
"""


def test_a_killed_stage_is_invisible_and_its_parts_are_adopted(tmp_path: Path, computed: list[int]) -> None:
    root = tmp_path / "store"
    project = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(root), "9", "0"], cwd=project, check=False)
    assert ended.returncode == -signal.SIGKILL

    store, config = Store(root, stages=STAGES), DrawingConfig(bad_every=5)
    planned = plan(store, DRAWING, config, {})
    assert (planned.status, planned.parts_done) == ("resumes", 2)
    assert not store.is_committed("drawing", planned.digest)
    with pytest.raises(StoreError, match="no committed drawing artifact"):
        store.reader(planned.expected())
    lease = json.loads(Path(store.uri("drawing", planned.digest), "lease.json").read_text())
    assert lease["pid"] > 0, "the killed worker's lease is still there, and is taken over"

    resumed = execute(store, planned, NullProgress())
    assert computed == [8, 9]
    whole = make(Store("memory://whole", stages=STAGES), DRAWING, bad_every=5)
    assert (resumed.digest, resumed.content) == (whole.digest, whole.content)
    reader = store.reader(resumed)
    assert [row["sample_id"] for row in reader.rows()] == [f"s00{i}" for i in (1, 2, 3, 4, 6, 7, 8, 9)]
    assert reader.manifest.dropped == {"unreadable_image": 2}
    assert attempts(store.files, store.base("drawing", resumed.digest)) == [reader.manifest.attempt]


def test_a_failed_stage_resumes_and_equals_an_uninterrupted_one(store: Store, computed: list[int]) -> None:
    with pytest.raises(StoreError, match="asked to fail at 5"):
        make(store, DRAWING, fail_at=5)
    assert plan(store, DRAWING, DrawingConfig(), {}).status == "resumes"
    resumed = make(store, DRAWING)
    assert computed == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9]
    assert resumed.content == make(Store("memory://plain", stages=STAGES), DRAWING).content


class _Crash(BaseException):
    """The end of a process, as far as the code after it can tell."""


def test_a_crash_at_any_write_is_invisible_and_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"count": 6, "part_rows": 3, "bad_every": 4}
    whole = make(Store("memory://unharmed", stages=STAGES), DRAWING, **options)
    renamed, sync = 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal renamed
        renamed += 1
        if renamed == crash_at:
            raise _Crash
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for crash_at in range(1, 20):
        renamed, store = 0, Store(tmp_path / str(crash_at), stages=STAGES)
        try:
            make(store, DRAWING, **options)
        except _Crash:
            assert not store.is_committed("drawing", whole.digest)
        else:
            assert crash_at == 9, "lease; part, dead letters, sidecar, twice; manifest: eight writes"
            break
        assert make(store, DRAWING, **options).content == whole.content
        left = [name for name in store.files.names(store.base("drawing", whole.digest)) if name != "manifest.json"]
        assert left == [store.reader(whole).manifest.attempt], "nothing of the crashed attempt remains"


def test_parts_of_another_size_are_made_anew(store: Store, computed: list[int]) -> None:
    with pytest.raises(StoreError):
        make(store, DRAWING, fail_at=9)
    computed.clear()
    make(store, DRAWING, part_rows=5)
    assert computed == list(range(10))


def test_parts_of_other_code_are_made_anew(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "resumed_code.py"
    source.write_text("A = 1\n")
    spec = StageSpec(**{**vars(DRAWING), "modules": ("resumed_code",)})
    with pytest.raises(StoreError):
        make(local_store, spec, fail_at=5)
    assert plan(local_store, spec, DrawingConfig(), {}).parts_done == 1
    source.write_text("A = 2\n")
    assert plan(local_store, spec, DrawingConfig(), {}).status == "runs"
    computed.clear()
    make(local_store, spec)
    assert computed == list(range(10))
    source.write_text("A = 3\n")
    cached = plan(local_store, spec, DrawingConfig(), {})
    assert cached.status == "cached"
    assert "source of stage drawing has changed" in cached.warnings[0]


def test_a_damaged_part_of_a_killed_attempt_is_not_adopted(local_store: Store, computed: list[int]) -> None:
    with pytest.raises(StoreError):
        make(local_store, DRAWING, fail_at=9)
    planned = plan(local_store, DRAWING, DrawingConfig(), {})
    part = next(Path(local_store.uri("drawing", planned.digest)).glob("*/part-00000.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    computed.clear()
    execute(local_store, planned, NullProgress())
    assert computed == [0, 1, 2, 3, 8, 9]


def test_scratch_outlives_a_failed_attempt_and_ends_with_the_commit(store: Store) -> None:
    drawn = make(store, DRAWING)
    odd = StageSpec(**{**vars(ANSWERS), "entry": "tests.execution.fakes:visit_and_fail"})
    planned = plan(store, odd, AnswersConfig(), {"samples": drawn})
    visits = store.scratch("answers", planned.digest, code_digest(())) / "visits"
    with pytest.raises(StoreError, match="visited"):
        execute(store, planned, NullProgress(), spec=odd)
    assert visits.read_text() == "1"
    again = plan(store, odd, AnswersConfig(), {"samples": drawn})
    assert (again.status, again.scratch) == ("resumes", True)
    execute(store, again, NullProgress())
    assert not visits.parent.exists()


class _Listener(NullProgress):
    """Keeps what is logged, and says when it is told something."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.begun, self.told = threading.Event(), threading.Event()

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.begun.set()

    def log(self, message: str) -> None:
        self.messages.append(message)
        self.told.set()


def test_of_two_runs_of_a_stage_one_works_and_the_other_waits(store: Store, computed: list[int]) -> None:
    planned = plan(store, DRAWING, DrawingConfig(pause_s=0.3), {})
    working, waiting = _Listener(), _Listener()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(execute, store, planned, working)
        assert working.begun.wait(10)
        second = pool.submit(execute, store, planned, waiting)
        assert waiting.told.wait(10)
        assert not first.done(), "the line is there while the other works"
    assert second.result() == first.result()
    assert computed == list(range(10))
    assert (len(waiting.messages), working.messages, waiting.begun.is_set()) == (1, [], False)
    line = rf"drawing: waiting for \S+@\S+ pid {os.getpid()}, which is making this artifact \(last heard of \d s ago\)"
    assert re.fullmatch(line, waiting.messages[0])
    assert execute(store, planned, NullProgress()) == first.result(), "an old plan finds what another worker made"


def test_who_waits_for_a_worker_that_dies_goes_on_with_its_parts(tmp_path: Path, computed: list[int]) -> None:
    root, project, listener = tmp_path / "store", Path(__file__).parents[2], _Listener()
    store = Store(root, stages=STAGES)
    planned = plan(store, DRAWING, DrawingConfig(bad_every=5), {})
    lease = Path(store.uri("drawing", planned.digest), "lease.json")
    dying = subprocess.Popen([sys.executable, "-c", _KILLED, str(root), "9", "0.3"], cwd=project)
    try:
        while not lease.exists() and dying.poll() is None:
            time.sleep(0.02)
        resumed = execute(store, planned, listener)
    finally:
        dying.kill()
    assert dying.wait() == -signal.SIGKILL
    assert f"pid {dying.pid}, which is making this artifact" in listener.messages[0]
    assert computed == [8, 9]
    assert resumed.content == make(Store("memory://alone", stages=STAGES), DRAWING, bad_every=5).content


def test_a_worker_that_lost_its_lease_commits_nothing(local_store: Store) -> None:
    elsewhere = Store("memory://elsewhere", stages=STAGES)
    manifest = elsewhere.reader(make(elsewhere, DRAWING)).manifest
    path = f"{local_store.base('drawing', manifest.digest)}/lease.json"
    with local_store.lease("drawing", manifest.digest) as lease:
        taken = json.loads(local_store.files.read(path)) | {"token": "another", "holder": "someone@else pid 1"}
        local_store.files.write(path, json.dumps(taken).encode())
        with pytest.raises(LeaseHeld, match="someone@else pid 1"):
            local_store.commit(manifest, lease)
    assert not local_store.is_committed("drawing", manifest.digest)
    assert json.loads(local_store.files.read(path))["token"] == "another", "the new holder's lease is left alone"
