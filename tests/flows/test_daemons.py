"""Detached processes: found again by pid and start time, their descendants by the mark, and nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.service.daemons import Daemon, children, end, kill, marked
from flows.service.files import Service

# A child in a session of its own outlives the daemon.
PARENT = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True)\n"
    "print('started', flush=True)\n"
    "time.sleep(300)\n"
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with one child, both running."""
    daemon = Daemon("parent", tmp_path)
    daemon.start([sys.executable, "-c", PARENT], os.environ)
    while "started" not in daemon.last_lines():
        time.sleep(0.05)
    yield daemon
    kill(marked(tmp_path))


def test_a_daemon_is_found_again_and_its_descendants_too(daemon: Daemon, tmp_path: Path) -> None:
    process = daemon.process()
    assert process is not None
    assert os.getsid(process.pid) == process.pid  # a closed terminal does not end it
    (child,) = children(process)
    assert set(marked(tmp_path)) == {process, child}
    kill([process])
    assert daemon.process() is None
    assert marked(tmp_path) == [child]
    assert end([child], 30) == []
    assert marked(tmp_path) == []


def test_others_are_not_touched(daemon: Daemon, tmp_path: Path) -> None:
    other = Daemon("other", tmp_path / "other")
    other.folder.mkdir()
    process = other.start([sys.executable, "-c", "import time; time.sleep(300)"], os.environ)
    assert process not in marked(tmp_path)
    kill(marked(tmp_path))
    assert other.process() == process
    kill(marked(other.folder))
    assert other.process() is None


def test_a_pid_given_to_another_process_is_not_the_daemon(tmp_path: Path) -> None:
    own = psutil.Process()
    daemon = Daemon("old", tmp_path)
    assert daemon.process() is None
    daemon.pid_file.write_text(json.dumps({"pid": own.pid, "created": own.create_time() - 60}))
    assert daemon.process() is None
    daemon.pid_file.write_text(json.dumps({"pid": own.pid, "created": own.create_time()}))
    assert daemon.process() == own


def test_who_will_not_end_is_named(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"{deaf}; print('ready', flush=True); time.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        process = psutil.Process(stubborn.pid)
        assert end([process], 0.5) == [process]
        kill([process])


def test_settings_of_the_server_and_of_flow_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's password is the server's; another server's address and secret are nobody's here."""
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://mbpo:password@127.0.0.1/prefect")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("PREFECT_API_KEY", "key")
    monkeypatch.setenv("PREFECT_SERVER_API_HOST", "0.0.0.0")
    service = Service(str(tmp_path / "runs"))
    service.make_folder()
    service.url_file.write_text("http://127.0.0.1:4200/api")
    server, worker = service.server_environment(4200), service.worker_environment()
    assert server["PREFECT_API_DATABASE_CONNECTION_URL"].endswith("/prefect")
    assert "PREFECT_API_DATABASE_CONNECTION_URL" not in worker
    assert server["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert worker["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert "PREFECT_API_KEY" not in server | worker
    assert "PREFECT_API_URL" not in server
    assert worker["PREFECT_API_AUTH_STRING"] == server["PREFECT_SERVER_API_AUTH_STRING"]
    before = service.auth_file.read_text()
    service.make_folder()
    assert service.auth_file.read_text() == before
