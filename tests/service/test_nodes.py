"""Two machines in one: ssh servers on two loopback addresses, one worker on each, started by the DeepSpeed launcher."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpo_core.config import LaunchConfig
from mbpo_core.errors import WorkerFailed
from mbpo_core.launching.supervisor import Supervisor
from mbpo_core.store import Store
from mbpo_core.training.job import JobRows
from mbpo_core.training.stage import train_in
from tests.execution.conftest import make
from tests.execution.fakes import STAGES
from tests.launching.conftest import SHARED_DRAWING, tree_members, wait_for
from tests.training.conftest import Recorder, Trained, collect, rows
from tests.training.rows import job
from tests.training.test_resume import assert_equal

__all__ = ["rows"]  # a fixture

PROJECT = Path(__file__).parents[2]
NODES = ("127.0.0.1", "127.0.0.2")
TWO = LaunchConfig(processes=2)
SETTINGS = {"count": 20, "part_rows": 3, "bad_every": 5}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ssh client's config that reaches both nodes."""
    folder = tmp_path_factory.mktemp("ssh")
    port = _free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    client = folder / "client"
    client.write_text(
        f"Port {port}\nIdentityFile {folder}/user\nIdentitiesOnly yes\nUser {getpass.getuser()}\n"
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    (folder / "server").write_text(
        f"Port {port}\n" + "".join(f"ListenAddress {node}\n" for node in NODES) + f"HostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server insists on it when root starts it
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "tests/service/packages.sh installs it"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "server")], stderr=log)
    try:
        for node in NODES:
            assert wait_for(lambda node=node: _reached(client, node), 20), (folder / "log").read_text()
        yield client
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def nodes(ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hostfile of both, and the environment that goes with it; its folder is the node's."""
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("".join(f"{node} slots=1\n" for node in NODES))
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))
    monkeypatch.setenv("MBPO_HOSTFILE", str(hostfile))
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", f"-F {ssh}")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.chdir(PROJECT)
    return tmp_path / "node"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _reached(client: Path, node: str) -> bool:
    return subprocess.run(["ssh", "-F", str(client), node, "true"], check=False).returncode == 0


def test_a_shared_stage_is_the_same_on_two_nodes(nodes: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", stages=STAGES)
    spread = make(store, SHARED_DRAWING, **SETTINGS, launch=TWO)
    inline = LaunchConfig(launcher="inline")
    assert (
        spread.content == make(Store("memory://one", stages=STAGES), SHARED_DRAWING, **SETTINGS, launch=inline).content
    )
    assert tree_members(nodes) == []


def test_a_rank_killed_on_one_node_ends_the_other(nodes: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", stages=STAGES)
    slow = {"count": 400, "part_rows": 1, "pause_s": 0.5}
    begun = time.monotonic()
    with pytest.raises(WorkerFailed, match="nothing was heard of rank 1 for"):
        make(store, SHARED_DRAWING, **slow, die_at=3, launch=TWO)
    assert time.monotonic() - begun < 100, "the other one would have worked on for that long"
    assert wait_for(lambda: not tree_members(nodes), 15)


def test_training_on_two_nodes_equals_two_processes_of_one(
    rows: JobRows, nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Trained] = []
    for name in ("nodes", "here"):
        work, progress = job(tmp_path / name, epochs=2), Recorder()
        train_in(Supervisor(TWO), work, rows, progress)
        results.append(collect(work, progress))
        monkeypatch.delenv("MBPO_HOSTFILE", raising=False)
    spread, here = results
    assert spread.metrics == here.metrics
    assert spread.summary == here.summary
    assert_equal(spread.weights, here.weights)
    assert tree_members(nodes) == []


_FLOW = """
import sys
from mbpo_core.store import Store
from tests.execution.fakes import STAGES
from tests.launching.conftest import SHARED_DRAWING, Recorder
from tests.launching.test_supervisor import slow_plan
from mbpo_core.execution import execute
store = Store(sys.argv[1], stages=STAGES)
execute(store, slow_plan(store), Recorder(on_step=lambda: print("step", flush=True)), spec=SHARED_DRAWING)
"""


def test_nobody_survives_a_killed_supervisor_on_either_node(
    nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0")
    flow = subprocess.Popen([sys.executable, "-c", _FLOW, str(tmp_path / "store")], stdout=subprocess.PIPE)
    try:
        assert flow.stdout is not None
        assert flow.stdout.readline() == b"step\n"
        assert len(tree_members(nodes)) >= 5, "the launcher, and on each node one of DeepSpeed's and a worker"
        flow.send_signal(signal.SIGKILL)
        flow.wait()
        assert wait_for(lambda: not tree_members(nodes), 15)
    finally:
        flow.kill()
        flow.wait()
