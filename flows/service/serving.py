"""A Prefect server of our own on this machine, with pool, deployments and a worker: started and ended as one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from uuid import UUID

from flows.console import say
from flows.paths import deployments_folder, prefect_home
from flows.prefect_environment import QUIET, SILENT
from flows.service.daemons import children, end, kill, marked, variable
from flows.service.files import HOST, Service
from flows.service.prefect_api import ServiceError, server_client

# A loaded two-core machine takes most of a minute to the first answer.
START_TIMEOUT_S = 180
# A flow run cleans up within seconds. Prefect's way of ending it can get lost (an exception raised where Python
# ignores exceptions), so it is killed then.
RUN_TIMEOUT_S = 10
REPORT_TIMEOUT_S = 20
END_TIMEOUT_S = 30


def start(store: str, port: int) -> None:
    """Start server, pool, deployments and worker; what runs already is left alone.

    Args:
        store: store root; worker and flow runs write there.
        port: TCP port on 127.0.0.1 for API and UI.

    Raises:
        ServiceError: the port is taken, or something did not start; carries the end of its log.
    """
    service = Service(store)
    service.make_folder()
    server_was_there = service.server.process() is not None
    if server_was_there:
        say(f"The server is running already: {_ui_url(service)}")
    else:
        end([worker for worker in [service.worker.process()] if worker], END_TIMEOUT_S)  # of a server that is gone
        _start_server(service, port)
    # Prefect reads these when it is first imported, which create_pool does.
    os.environ.update(SILENT | QUIET | service.client_environment())
    from flows.service.pool import create_pool

    create_pool([], "")
    if service.worker.process() is not None:
        say("The worker is running already.")
    else:
        _deploy(service)
        _start_worker(service)
    _explain(service)


def stop(store: str) -> None:
    """End the store's server, worker and flow runs on this machine, and nothing else."""
    service = Service(store)
    server = service.server.process()
    others = [process for process in marked(service.folder) if process != server]
    if server is None and not others:
        say(f"No server of {store} is running on this machine.")
        return
    # Flow runs go first: they end what they have started, and the worker tells the server what became of them.
    worker = service.worker.process()
    runs = {process: variable(process, "PREFECT__FLOW_RUN_ID") for process in children(worker)}
    kill(end(list(runs), RUN_TIMEOUT_S))
    if worker is not None:
        _wait_for_reports(service, [name for name in runs.values() if name])
        end([worker], END_TIMEOUT_S)
    kill([process for process in marked(service.folder) if process != server])
    ended = [name for name, there in (("worker", worker), (f"{len(runs)} flow runs", runs)) if there]
    if server is not None:
        kill(end([server], END_TIMEOUT_S))
        ended.append("server")
    for daemon in (service.server, service.worker):
        daemon.pid_file.unlink(missing_ok=True)
    say(f"Ended: {', '.join(ended)}. The database and the logs stay in {prefect_home(store)}.")


def _wait_for_reports(service: Service, names: list[str]) -> None:
    """Wait until the server knows that these flow runs have ended; their states would be untrue for minutes else."""
    if not names or service.server.process() is None:
        return
    os.environ.update(SILENT | QUIET | service.client_environment())
    deadline = time.monotonic() + REPORT_TIMEOUT_S
    with contextlib.suppress(ServiceError), server_client() as client:
        while time.monotonic() < deadline:
            states = [client.read_flow_run(UUID(name)).state for name in names]
            if all(state is not None and state.is_final() for state in states):
                return
            time.sleep(0.5)


def _start_server(service: Service, port: int) -> None:
    _require_free(port)
    url = f"http://{HOST}:{port}/api"
    service.url_file.write_text(url, encoding="utf-8")
    say(f"Starting a Prefect server on {HOST}:{port} (up to a minute)")
    words = [sys.executable, "-m", "prefect", "server", "start"]
    process = service.server.start(words, service.server_environment(port))
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _healthy(url):
        if service.server.process() is None or time.monotonic() > deadline:
            kill([process])
            raise ServiceError(
                f"the Prefect server did not start; it said:\n{service.server.last_lines()}\n",
                where=str(service.server.log),
                remedy="Run mbpo doctor; it checks what the server needs.",
            )
        time.sleep(0.5)


def _deploy(service: Service) -> None:
    file = deployments_folder() / "prefect.yaml"
    words = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(file), "--all"]
    environment = service.worker_environment()
    done = subprocess.run(
        words, cwd=service.folder, env=environment, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S
    )
    (service.folder / "deploy.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-20:]
        raise ServiceError(
            "deploying failed; Prefect said:\n" + "\n".join(lines) + "\n",
            where=str(file),
            remedy="Correct the file and run mbpo server up again.",
        )
    say(f"Deployed {file}")


def _start_worker(service: Service) -> None:
    from flows.service.pool import POOL
    from mbpo_core.launching.devices import node_name
    from mbpo_core.launching.reaping import reap

    for pid in reap():
        say(f"Killed process {pid}, left behind by a worker that is gone")
    # One run at a time: the accelerators of a node are not shared.
    options = ["--pool", POOL, "--type", "process", "--limit", "1", "--name", node_name()]
    words = [sys.executable, "-m", "prefect", "worker", "start", *options]
    service.worker.start(words, service.worker_environment())
    say(f"Started worker {node_name()}")


def _explain(service: Service) -> None:
    url = service.client_environment()["PREFECT_API_URL"]
    say(f"Prefect: {_ui_url(service)} (it asks for the auth string: {service.auth_file})")
    say(f"Logs:    {service.server.log} and {service.worker.log}")
    say("For a shell:")
    say(f"  export PREFECT_API_URL={url}")
    say(f'  export PREFECT_API_AUTH_STRING="$(cat {service.auth_file})"')


def _ui_url(service: Service) -> str:
    return service.url_file.read_text(encoding="utf-8").removesuffix("/api")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServiceError(
                f"port {port} of {HOST} is taken ({error.strerror})",
                remedy="Choose another one with --port, or end what holds it "
                "(another store's server: mbpo server down --store THAT_STORE).",
            ) from error


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
