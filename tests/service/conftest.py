"""A service as `mbpo server up` starts it, for every test here; `mbpo server down` must leave nothing of it."""

from __future__ import annotations

import base64
import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.service.daemons import marked
from flows.service.files import Service as ServiceFiles
from tests.flows.environment import clean, command

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Service:
    """A running server with pool, deployments and one worker, and the environment its users work in."""

    url: str
    auth: str = field(repr=False)
    folder: Path
    store: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def files(self) -> ServiceFiles:
        """Where pid files and logs are, and the processes themselves."""
        return ServiceFiles(str(self.store))

    def ask(self, path: str, method: str = "POST", **body: Any) -> Any:
        """Ask the API, as the UI does; None where the answer is empty."""
        data = None if method == "GET" else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **self.headers()}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def headers(self) -> dict[str, str]:
        """Who asks: the auth string, and the token that keeps other pages' forms out."""
        known = {"Authorization": "Basic " + base64.b64encode(self.auth.encode()).decode()}
        request = urllib.request.Request(f"{self.url}/csrf-token?client=tests", headers=known)
        with urllib.request.urlopen(request, timeout=60) as answer:
            token = json.load(answer)["token"]
        return {**known, "Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"}

    def command(self, *words: str, cwd: Path | None = None) -> str:
        """Run a command against this service and return what it printed."""
        return command(list(words), self.folder, self.environment, cwd)

    def deployment_id(self, name: str) -> str:
        """Of FLOW/DEPLOYMENT."""
        return str(self.ask(f"/deployments/name/{name}", "GET")["id"])

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Start FLOW/DEPLOYMENT as a click on its form does; the worker takes it within seconds."""
        answer = self.ask(f"/deployments/{self.deployment_id(deployment)}/create_flow_run", parameters=parameters)
        return str(answer["id"])

    def run_state(self, run_id: str) -> str:
        """The state's type: SCHEDULED, PENDING, RUNNING, CANCELLING, or one of TERMINAL."""
        return str(self.ask(f"/flow_runs/{run_id}", "GET")["state_type"])

    def wait_for(self, run_id: str, *states: str, timeout_s: float = 180) -> dict[str, Any]:
        """Wait until a flow run has one of these state types, TERMINAL if none are given, and return the run.

        Raises:
            AssertionError: it ended otherwise, or `timeout_s` passed; carries what it logged last.
        """
        wanted = set(states) or TERMINAL
        deadline = time.monotonic() + timeout_s
        while True:
            run: dict[str, Any] = self.ask(f"/flow_runs/{run_id}", "GET")
            if run["state_type"] in wanted:
                return run
            over = run["state_type"] in TERMINAL or time.monotonic() > deadline
            assert not over, f"{run['state_type']}: {run['state']['message']}\n" + "\n".join(self.logs(run_id)[-30:])
            time.sleep(0.5)

    def logs(self, run_id: str) -> list[str]:
        """What a flow run logged, oldest first (the first 200 lines)."""
        lines = self.ask("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC", limit=200)
        return [line["message"] for line in lines]

    def up(self) -> str:
        """`mbpo server up` again: starts what is missing, such as a killed worker."""
        port = self.url.removesuffix("/api").rpartition(":")[2]
        return self.command("mbpo", "server", "up", "--port", port)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_service(folder: Path, **variables: str) -> Iterator[Service]:
    """`mbpo server up` in a folder, with more environment variables if given, and `mbpo server down`."""
    store = folder / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    environment = clean(folder, MBPO_STORE=str(store), **variables)
    files = ServiceFiles(str(store))
    try:
        command(["mbpo", "server", "up", "--port", str(free_port())], folder, environment)
        client = files.client_environment()
        auth = client["PREFECT_API_AUTH_STRING"]
        yield Service(client["PREFECT_API_URL"], auth, folder, store, environment | client)
    finally:
        command(["mbpo", "server", "down"], folder, environment)
        left = [" ".join(process.cmdline()) for process in marked(files.folder)]
        assert not left, left


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests; heartbeats are as short as Prefect allows anyway."""
    with running_service(tmp_path_factory.mktemp("service")) as started:
        yield started
