"""Trees without a supervisor are ended by anyone; a process ends with the one that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpo_core.launching.reaping import reap
from mbpo_core.launching.relay import Heart
from mbpo_core.launching.trees import TOKEN, Tree, new_tree, trees
from mbpo_core.store.lease import process_started
from tests.launching.conftest import tree_members, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(120)"]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def _member(tree: Tree) -> subprocess.Popen[bytes]:
    """A process of a tree, up and running."""
    process = subprocess.Popen(
        SLEEP, stdout=subprocess.PIPE, env={**os.environ, TOKEN: tree.token}, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def _gone() -> dict[str, object]:
    """Number and start of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found: dict[str, object] = {"supervisor": ended.pid, "started": process_started(ended.pid)}
    ended.communicate(b"\n")
    return found


def test_a_tree_without_supervisor_is_reaped_and_others_are_left(started: list[subprocess.Popen[bytes]]) -> None:
    live, orphaned = new_tree(["fake:0"]), new_tree([]).model_copy(update=_gone())
    foreign = new_tree([]).model_copy(update={**_gone(), "machine": "elsewhere"})
    for tree in (live, orphaned, foreign):
        tree.remember()
        started.append(_member(tree))
    assert reap() == [started[1].pid]
    assert [process_started(process.pid) is not None for process in started] == [True, False, True]
    assert {tree.token for tree in trees()} == {live.token, foreign.token}
    assert reap() == []


def test_a_reused_process_number_is_no_supervisor(started: list[subprocess.Popen[bytes]]) -> None:
    tree = new_tree([]).model_copy(update={"started": "1"})
    tree.remember()
    started.append(_member(tree))
    assert reap() == [started[0].pid]


def test_what_another_user_wrote_is_passed_over(node_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_tree([]).remember()
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert trees() == []


def test_a_record_that_cannot_be_read_is_passed_over(node_folder: Path) -> None:
    new_tree([]).remember()
    (node_folder / "trees" / "broken.json").write_text("{")
    assert len(trees()) == 1
    assert reap() == []


_FOLLOWER = """
import os, subprocess, sys, time
from pathlib import Path
from mbpo_core.launching.reaping import follow_parent
from mbpo_core.launching.trees import TOKEN, new_tree

def last_words():
    Path(sys.argv[1]).write_text("orphaned")
    if sys.argv[2] == "slow":
        time.sleep(600)
    raise RuntimeError("ignored")

tree = new_tree([])
tree.remember()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={**os.environ, TOKEN: tree.token})
os.environ[TOKEN] = "follower"
follow_parent(last_words)
print(os.getpid(), flush=True)
time.sleep(600)
"""
_WORKER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
time.sleep(600)
"""


@pytest.mark.parametrize("words", ["quick", "slow"])
def test_a_flow_ends_with_its_worker_and_takes_its_tree_along(
    tmp_path: Path, node_folder: Path, started: list[subprocess.Popen[bytes]], words: str
) -> None:
    command = [sys.executable, "-c", _WORKER, _FOLLOWER, str(tmp_path / "words"), words]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    started.append(worker)
    assert worker.stdout is not None
    follower = int(worker.stdout.readline())
    assert process_started(follower)
    assert wait_for(lambda: len(tree_members(node_folder)) == 1, 10)
    worker.kill()
    worker.wait()
    assert wait_for(lambda: not process_started(follower) and not tree_members(node_folder), 15)
    assert (tmp_path / "words").read_text() == "orphaned"
    assert trees() == []


_LISTENER = """
import sys, time
from pathlib import Path
from mbpo_core.launching import relay
relay.SILENCE_S = 2.0
relay.follow_heartbeat(Path(sys.argv[1]), 0)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("ending", ["stopped", "silent"])
def test_a_worker_elsewhere_ends_when_the_heart_does(
    tmp_path: Path, started: list[subprocess.Popen[bytes]], ending: str
) -> None:
    heart = Heart(tmp_path)
    heart.start()
    listener = subprocess.Popen(
        [sys.executable, "-c", _LISTENER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    started.append(listener)
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"up\n"
    time.sleep(3)
    assert listener.poll() is None, "it hears the beats"
    heart.stop()
    if ending == "silent":  # as after the supervisor was killed
        (tmp_path / "heartbeat").write_text("7")
    assert listener.wait(15) == 1


DEAF = """
import signal, sys, time
from mbpo_core.launching.reaping import insist
heard = lambda *_: print("heard", flush=True)  # and nothing comes of it
signal.signal(signal.SIGTERM, heard)
insist(signal.SIGTERM, patience_s=0.5)
assert signal.getsignal(signal.SIGTERM) is heard  # as Prefect checks of its own
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.raise_signal(signal.SIGUSR1)  # another signal ends nothing
print("up", flush=True)
time.sleep(600)
"""


def test_a_signal_whose_exception_gets_lost_still_ends_the_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.readline() == "heard\n"  # who was in charge before is asked first
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()
