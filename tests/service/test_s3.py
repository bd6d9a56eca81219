"""The store on S3, through s3fs and a real HTTP server on loopback.

The server is moto's: it honours If-None-Match and If-Match on PUT, and keeps objects in its memory. It does not check
signatures, has no eventual trouble (slow-downs, lost answers), and answers one request at a time. rclone's S3 server,
tried too, takes no notice of If-None-Match; `test_a_server_that_ignores_the_condition_is_refused` is about such ones.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import s3fs

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DamagedArtifact, LeaseHeld, StoreError
from mbpo_core.execution import plan
from mbpo_core.stage import PolicyRef
from mbpo_core.store import Store, remote_lock
from mbpo_core.store.files import Files
from mbpo_core.store.gc import collect
from mbpo_core.store.lease import Lease, read_lease
from mbpo_core.store.roots import open_files
from tests.execution import fakes
from tests.execution.conftest import computed, make  # noqa: F401 (a fixture)
from tests.execution.test_damage import (  # noqa: F401
    test_a_damaged_manifest_is_made_anew,
    test_a_flipped_bit_is_noticed_by_reader_and_plan,
    test_a_forced_rerun_replaces_only_when_finished,
    test_damaged_files_beside_the_tables,
    test_missing_and_short_files_are_named,
)
from tests.execution.test_dropped import test_the_limit_holds_over_adopted_parts_too  # noqa: F401
from tests.execution.test_execute import (  # noqa: F401
    test_a_checkpoint_is_a_local_folder_and_a_policy,
    test_a_view_keeps_order_and_can_be_narrowed,
    test_dropped_rows_are_a_table_with_counts,
    test_equal_identity_is_computed_once,
    test_further_tables_files_and_what_is_not_there,
    test_rows_come_back_in_order_and_exact,
)
from tests.execution.test_explain import (  # noqa: F401
    base,
    test_a_rerun_of_one_stage_names_what_is_stale,
    test_a_trace_leads_back_to_the_rows,
    test_everything_is_cached_and_reuse_is_counted,
)
from tests.execution.test_plan import test_a_deleted_artifact_is_missing  # noqa: F401
from tests.execution.test_resume import (  # noqa: F401
    test_a_failed_stage_resumes_and_equals_an_uninterrupted_one,
    test_of_two_runs_of_a_stage_one_works_and_the_other_waits,
    test_scratch_outlives_a_failed_attempt_and_ends_with_the_commit,
)
from tests.flows.environment import clean, command
from tests.store.test_files import (  # noqa: F401
    test_create_never_replaces,
    test_paths_cannot_leave_the_tree,
    test_upload_and_link,
    test_write_read_list_remove,
)
from tests.store.test_gc import (  # noqa: F401
    test_a_live_worker_is_never_touched,
    test_a_moved_pointer_lets_the_old_artifact_go,
    test_unfinished_attempts_stay_a_while,
    test_what_runs_need_stays,
)
from tests.store.test_lease import (  # noqa: F401
    test_a_lease_is_held_and_given_back,
    test_a_live_worker_elsewhere_is_named,
    test_a_lost_lease_is_left_to_its_new_holder,
    test_an_expired_lease_is_taken_over,
    test_of_many_takers_one_wins,
)
from tests.store.test_runs import test_many_writers_lose_nothing, test_pointers_move_and_remember  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
KEY, SECRET, TOKEN = (f"{name}{uuid.uuid4().hex.upper()}" for name in ("KEYID", "SECRET", "SESSION"))
LONG_S = 120.0


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of its own process on a free port, and the environment that leads to it."""
    script = Path(__file__).with_name("s3_server.py")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        changes = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in changes.items():
                patch.setenv(name, value)
            patch.delenv("AWS_PROFILE", raising=False)
            yield url
        server.terminate()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; local copies and scratch lie in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b-{uuid.uuid4().hex[:12]}"
    plain().mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def files(bucket: str) -> Files:
    """An empty tree; takes the place of the fixture of the tests that are imported above."""
    return open_files(f"s3://{bucket}/deep/store")


@pytest.fixture
def store(bucket: str) -> Store:
    """An empty store; takes the place of the fixture of the tests that are imported above."""
    return Store(f"s3://{bucket}/store", stages=fakes.STAGES)


def plain() -> s3fs.S3FileSystem:
    """A client of its own that remembers nothing."""
    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


def objects(bucket: str) -> dict[str, bytes]:
    """Every object with its bytes."""
    client = plain()
    return {name: client.cat_file(name) for name in client.find(bucket)}


def python(source: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process with this environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = process.stdout.readline()
    assert found, f"it ended with {process.wait(LONG_S)}"
    return found.strip()


def test_a_pipeline_of_stages(store: Store, tmp_path: Path) -> None:
    drawn = make(store, fakes.DRAWING, bad_every=5)
    answered = make(store, fakes.ANSWERS, {"samples": drawn})
    (tmp_path / "base").mkdir()
    policy = {"policy": PolicyRef(folder=str(tmp_path / "base"), digest="0" * 64)}
    fitted = make(store, fakes.FITTING, {"answers": answered}, policies=policy, policy_config=PolicyConfig())
    assert all(ref.uri.startswith("s3://") for ref in (drawn, answered, fitted))
    folder = Store(store.root, stages=fakes.STAGES).reader(fitted).folder("checkpoint")
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "deep" / "model.safetensors").read_bytes() == b"0 7 base"
    assert plan(store, fakes.DRAWING, fakes.DrawingConfig(bad_every=5), {}).status == "cached"


def test_it_equals_a_local_store_to_the_byte(store: Store, tmp_path: Path) -> None:
    local = Store(tmp_path / "store", stages=fakes.STAGES)
    here, there = (make(one, fakes.DRAWING, bad_every=5) for one in (local, store))
    assert (here.digest, here.content) == (there.digest, there.content)


def test_plain_readers_open_it(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the offline mode that make sets, `datasets` would refuse every URL."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    drawn = make(store, fakes.DRAWING, part_rows=4)
    manifest = store.manifest("drawing", drawn.digest)
    assert manifest is not None
    urls = [f"{drawn.uri}/{part.file.path}" for part in manifest.parts]
    rows = datasets.load_dataset("parquet", data_files=urls, split="train", cache_dir=str(tmp_path / "hf"))
    assert rows["sample_id"][:] == [f"s{index:03d}" for index in range(10)]
    assert rows[0]["images"][0].size == (4, 4)
    assert list(pandas.read_parquet(urls[-1])["sample_id"]) == ["s008", "s009"]


COMMIT = """
import sys
from mbpo_core.store.roots import open_files
files = open_files(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    print(int(files.create(f"a/{number}/manifest.json", sys.argv[2].encode())), flush=True)
"""


def test_of_two_commits_at_once_one_wins(files: Files) -> None:
    """Twenty objects each, from two processes; every one is created exactly once and stays as its creator wrote it."""
    both = [python(COMMIT, files.root, name) for name in ("one", "two")]
    assert [line(process) for process in both] == ["ready", "ready"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    won = [[int(text) for text in process.communicate(timeout=LONG_S)[0].split()] for process in both]
    assert [one + two for one, two in zip(*won, strict=True)] == [1] * 20
    for number, first in enumerate(won[0]):
        assert files.read(f"a/{number}/manifest.json") == (b"one" if first else b"two")


HOLD = """
import sys
from mbpo_core.store.lease import Lease
from mbpo_core.store.roots import open_files
with Lease(open_files(sys.argv[1]), "a/lease.json", expiry_s=3, heartbeat_s=0.5):
    print("held", flush=True)
    sys.stdin.readline()
print("given back", flush=True)
"""


def test_a_lease_between_processes(files: Files) -> None:
    other = python(HOLD, files.root)
    assert line(other) == "held"
    with pytest.raises(LeaseHeld, match=rf"pid {other.pid} is writing this artifact"):
        Lease(files, "a/lease.json").__enter__()
    time.sleep(4)  # longer than it lasts: only heartbeats keep it
    with pytest.raises(LeaseHeld):
        Lease(files, "a/lease.json").__enter__()
    other.communicate("\n", timeout=LONG_S)
    with Lease(files, "a/lease.json") as mine:
        assert mine.mine()


@pytest.mark.parametrize("machine", ["this", "another"])
def test_a_dead_holders_lease_is_taken_over(files: Files, machine: str) -> None:
    """On this machine at once; another machine's when it ends by itself."""
    other = python(HOLD, files.root)
    assert line(other) == "held"
    other.kill()
    other.wait(LONG_S)
    if machine == "another":
        info = json.loads(files.read("a/lease.json"))
        files.write("a/lease.json", json.dumps({**info, "machine": "far away"}).encode())
    deadline = time.monotonic() + LONG_S
    while (held := read_lease(files, "a/lease.json")) and held.live():
        assert machine == "another"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with Lease(files, "a/lease.json") as mine:
        assert mine.mine()


LOCK = """
import sys, time
from mbpo_core.store.roots import open_files
files = open_files(sys.argv[1])
with files.locked():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_dead_process_does_not_lock_the_tree_for_ever(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    other = python(LOCK, files.root)
    assert line(other) == "locked"
    os.kill(other.pid, signal.SIGKILL)
    other.wait(LONG_S)
    assert files.size("lock") is not None
    monkeypatch.setattr(remote_lock, "STALE_S", 1.0)
    inside: list[int] = []

    def enter(number: int) -> None:
        with open_files(files.root).locked():
            inside.append(number)
            assert len(inside) == 1
            time.sleep(0.05)
            inside.remove(number)
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=enter, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert len(done) == 3
    assert files.size("lock") is None


POINT = """
import sys
from mbpo_core.stage import ArtifactRef
from mbpo_core.store.roots import open_files
from mbpo_core.store.runs import Run
run = Run(open_files(sys.argv[1]), "nightly")
for number in range(5):
    run.point(f"training/{sys.argv[2]}{number}", ArtifactRef(stage="training", digest="0" * 64, content="1", uri="u"))
"""


def test_pointers_set_by_two_processes_are_all_kept(files: Files) -> None:
    both = [python(POINT, files.root, name) for name in "ab"]
    assert [process.communicate(timeout=LONG_S)[0] for process in both] == ["", ""]
    pointers = json.loads(files.read("runs/nightly.json"))["pointers"]
    assert sorted(pointers) == sorted(f"training/{name}{number}" for name in "ab" for number in range(5))


def test_what_another_process_wrote_is_seen_at_once(files: Files) -> None:
    assert files.names("a") == []
    writer = "import sys; from mbpo_core.store.roots import open_files; open_files(sys.argv[1]).write('a/b', b'12')"
    for expected in (["b"], ["b"]):
        assert python(writer, files.root).communicate(timeout=LONG_S)[0] == ""
        assert (files.names("a"), files.size("a/b"), files.walk("a")) == (expected, 2, {"a/b": 2})
        files.remove("a")
        assert (files.names("a"), files.size("a/b"), files.walk("a")) == ([], None, {})


KILLED = """
import sys
from tests.execution import fakes
from tests.execution.conftest import make
from mbpo_core.store import Store
make(Store(sys.argv[1], stages=fakes.STAGES), fakes.DRAWING, die_at=6)
"""


def test_a_killed_stage_resumes_from_its_parts(store: Store, tmp_path: Path, computed: list[int]) -> None:  # noqa: F811
    killed = python(KILLED, store.root)
    killed.communicate(timeout=LONG_S)
    assert killed.returncode == -signal.SIGKILL
    assert plan(store, fakes.DRAWING, fakes.DrawingConfig(), {}).status != "cached"
    made = make(store, fakes.DRAWING)
    assert computed == [4, 5, 6, 7, 8, 9]
    whole = make(Store(tmp_path / "whole", stages=fakes.STAGES), fakes.DRAWING)
    assert made.content == whole.content


def test_damage_is_noticed(store: Store) -> None:
    drawn = make(store, fakes.DRAWING)
    (path, *_) = [name for name in plain().find(store.root) if name.endswith("part-00000.parquet")]
    data = bytearray(plain().cat_file(path))
    data[len(data) // 2] ^= 1
    plain().pipe_file(path, bytes(data))
    with pytest.raises(DamagedArtifact, match="bytes have changed"):
        list(Store(store.root, stages=fakes.STAGES).reader(drawn).rows())


def test_what_no_run_needs_is_deleted(store: Store, bucket: str) -> None:
    drawn = make(store, fakes.DRAWING)
    kept = make(store, fakes.DRAWING, shade=11)
    store.run("demo").point("drawing", kept)
    assert [entry.digest for entry in collect(store, unused_age_s=0)] == [drawn.digest]
    assert [entry.deleted for entry in collect(store, delete=True, unused_age_s=0)] == [True]
    assert not [name for name in objects(bucket) if drawn.digest in name]
    assert len(list(store.reader(kept).rows())) == 10


def test_no_credential_is_written_anywhere(
    store: Store, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="mbpo_core"):
        test_a_pipeline_of_stages(store, tmp_path)
        store.run("demo").save_config({"store": store.root})
    written = objects(bucket)
    assert len(written) > 10
    local = {str(path): path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    said = {"log": "\n".join(record.getMessage() for record in caplog.records).encode()}
    for secret in (KEY, SECRET, TOKEN):
        assert [name for name, data in {**written, **local, **said}.items() if secret.encode() in data] == []


def test_trouble_is_named(endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"cannot write: .*Create the bucket"):
        open_files("s3://no-such-bucket/store").write("a", b"")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"S3 does not answer: .*Check AWS_ENDPOINT_URL"):
        open_files(f"s3://{bucket}/store").read("a")


def test_a_server_that_ignores_the_condition_is_refused(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put = files.fs.pipe_file
    monkeypatch.setattr(files.fs, "pipe_file", lambda place, data, mode="": put(place, data))
    with pytest.raises(StoreError, match="replaces objects that it is asked to create only if absent"):
        files.create("lease.json", b"mine")
    assert files.size("lease.json") is None


def test_the_whole_method(bucket: str, endpoint: str, tmp_path: Path) -> None:
    """Its results, its reuse and its checks by the commands of a user who has a bucket and the environment."""
    environment = clean(tmp_path, MBPO_STORE=f"s3://{bucket}/runs", MBPO_NODE_FOLDER=str(tmp_path / "node"))
    first = command(["mbpo", "run", "--config", "smoke"], tmp_path, environment)
    assert f"s3://{bucket}/runs/artifacts/report/" in first
    again = command(["mbpo", "run", "--config", "smoke"], tmp_path, environment)
    assert "everything is cached" in again
    told = first + again
    for words in (["explain", "--run", "smoke"], ["show", "--run", "smoke"], ["verify"], ["gc"]):
        told += command(["mbpo", *words], tmp_path, environment)
    assert "no problems" in told
    files = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for secret in (KEY, SECRET, TOKEN):
        assert secret not in told
        assert [name for name, data in {**objects(bucket), **files}.items() if secret.encode() in data] == []
