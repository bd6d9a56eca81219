"""What `mbpo server up` starts, who is let in, and what `mbpo server down` ends."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from flows.service.daemons import marked
from tests.flows.environment import clean
from tests.service.conftest import Service, free_port, running_service


def _ask(
    service: Service, path: str, method: str, data: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer, whatever it is."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(service.url + path, data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def test_only_this_machine_reaches_it(service: Service) -> None:
    server = service.files.server.process()
    assert server is not None
    listening = [
        entry.laddr.ip
        for process in (server, *server.children(recursive=True))
        for entry in process.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_nobody_without_the_auth_string(service: Service) -> None:
    headers = service.headers()
    for path, method in (("/flow_runs/filter", "POST"), ("/admin/settings", "GET"), ("/csrf-token?client=x", "GET")):
        data = b"{}" if method == "POST" else None
        token = {name: value for name, value in headers.items() if name.startswith("Prefect")}
        assert _ask(service, path, method, data, **token)[0] == 401
        wrong = token | {"Authorization": "Basic bWJwbzp3cm9uZw=="}
        assert _ask(service, path, method, data, **wrong)[0] == 401
        assert _ask(service, path, method, data, Content_Type="application/json", **headers)[0] == 200


def test_no_page_of_another_origin(service: Service) -> None:
    own = service.url.removesuffix("/api")
    headers = service.headers()
    for origin, allowed in ((own, own), ("http://evil.example", None), ("http://127.0.0.1:1", None), ("null", None)):
        answered = _ask(
            service, "/flows/count", "POST", b"{}", Origin=origin, Content_Type="application/json", **headers
        )
        preflight = _ask(
            service,
            "/flows/count",
            "OPTIONS",
            Origin=origin,
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="authorization",
        )
        for _, answer in (answered, preflight):
            assert {name.lower(): value for name, value in answer.items()}.get("access-control-allow-origin") == allowed


def test_a_form_of_another_page_is_refused(service: Service) -> None:
    """A browser may attach the auth string by itself; the token it cannot."""
    auth = {"Authorization": service.headers()["Authorization"]}
    assert _ask(service, "/flows/count", "POST", b"{}", Content_Type="application/json", **auth)[0] == 403


def test_the_auth_string_is_nowhere_to_be_read(service: Service) -> None:
    secret = service.auth.partition(":")[2]
    assert len(secret) >= 32
    assert stat.S_IMODE(service.files.auth_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.files.folder.stat().st_mode) == 0o700
    run_id = service.start_run("samples/manual", run="nobody")
    service.wait_for(run_id, timeout_s=300)
    for log in service.files.folder.glob("*.log"):
        assert secret not in log.read_text(encoding="utf-8"), log
    assert not [process.pid for process in psutil.process_iter() if secret in " ".join(_words(process))]
    assert secret not in "\n".join(service.logs(run_id))
    assert secret not in json.dumps(service.ask("/artifacts/filter"))
    assert secret not in json.dumps(service.ask("/admin/settings", "GET"))
    assert secret not in json.dumps(service.ask("/work_pools/filter"))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def test_results_are_json(service: Service) -> None:
    """A pickle runs code when it is read."""
    run_id = service.start_run("smoke/manual")
    service.wait_for(run_id, "COMPLETED", timeout_s=900)
    results = [file for file in (service.folder / ".prefect" / "storage").iterdir() if file.is_file()]
    stored = [json.loads(file.read_text(encoding="utf-8")) for file in results]
    # An error's file is nothing but the error; a value's file says how the value in it is written.
    values = [entry for entry in stored if "__exc_type__" not in entry]
    assert {entry["metadata"]["serializer"]["type"] for entry in values} == {"json"}
    for entry in values:
        json.loads(entry["result"])


def test_nightly_is_scheduled(service: Service) -> None:
    """The scheduler writes the runs of the next days by itself."""
    deployment = service.ask("/deployments/name/pipeline/nightly", "GET")["id"]
    body = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    for _ in range(90):
        found = service.ask("/flow_runs/filter", **body)
        if found:
            break
        time.sleep(1)
    assert found, service.files.server.last_lines(40)


def test_up_again_changes_nothing_and_mends_what_is_gone(service: Service) -> None:
    server, worker = service.files.server.process(), service.files.worker.process()
    assert server is not None
    assert worker is not None
    said = service.up()
    assert "running already" in said
    assert "created" not in said
    assert "updated" not in said
    assert service.files.server.process() == server
    assert service.files.worker.process() == worker
    worker.kill()
    worker.wait(30)
    service.up()
    assert service.files.server.process() == server
    assert service.files.worker.process() not in (None, worker)


def test_a_taken_port_is_refused(service: Service, tmp_path: Path) -> None:
    port = service.url.removesuffix("/api").rpartition(":")[2]
    environment = clean(tmp_path, MBPO_STORE=str(tmp_path / "runs"))
    done = subprocess.run(
        ["mbpo", "server", "up", "--port", port], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert "--port" in done.stderr


def test_down_ends_its_own_and_nothing_else(tmp_path: Path) -> None:
    """Another server and another shell's process stay; so does the service of another store."""
    environment = clean(tmp_path, PREFECT_HOME=str(tmp_path / "other"))
    port = str(free_port())
    words = [sys.executable, "-m", "prefect", "server", "start", "--port", port, "--no-ui", "--no-services"]
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        other = subprocess.Popen(words, env=environment, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        with running_service(tmp_path / "own") as own:
            run_id = own.start_run("smoke/manual")
            own.wait_for(run_id, "RUNNING", timeout_s=180)
            processes = marked(own.files.folder)
            assert len(processes) >= 3
            said = own.command("mbpo", "server", "down")
            assert "worker" in said
            assert "server" in said
            assert not [process for process in processes if process.is_running()]
            assert "No server" in own.command("mbpo", "server", "down")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(30)
