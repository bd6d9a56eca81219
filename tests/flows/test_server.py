"""With a running Prefect server: the README's commands, deployments, and a run that the server knows of."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mbpo_core.stages import STAGES
from tests.flows.environment import ROOT, children_cpu_s, clean, command

DEPLOYMENTS = {"pipeline", "nightly", "smoke", *STAGES}


@dataclass(frozen=True)
class Server:
    """A running server and the folder and environment its users work in."""

    url: str
    folder: Path
    environment: dict[str, str]

    def ask(self, path: str, **body: Any) -> Any:
        """POST to the API, as the UI does."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def command(self, *words: str, cwd: Path | None = None) -> str:
        """Run a command against this server."""
        return command(list(words), self.folder, self.environment, cwd)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`prefect server start` on a free port, with a database of its own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = clean(
        folder, PREFECT_API_URL=url, PREFECT_HOME=str(folder / "prefect"), MBPO_STORE=str(folder / "runs")
    )
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        started = subprocess.Popen(
            ["prefect", "server", "start", "--port", str(port), "--no-ui"], env=environment, stdout=log, stderr=log
        )
        try:
            _wait_until_healthy(url, started)
            yield Server(url, folder, environment)
        finally:
            started.terminate()
            started.wait(30)


def _wait_until_healthy(url: str, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert started.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("the server did not come up")


@pytest.fixture(scope="module")
def deployed(server: Server) -> dict[str, Any]:
    """All deployments by name, deployed outside the checkout with nothing but the installed package."""
    (server.folder / "deployments").mkdir()
    shutil.copy(ROOT / "deployments" / "prefect.yaml", server.folder / "deployments")
    server.command("prefect", "work-pool", "create", "mbpo", "--type", "process")
    deploy = "prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all"
    server.command(*deploy.split())
    return {deployment["name"]: deployment for deployment in server.ask("/deployments/filter")}


def test_everything_deploys(deployed: dict[str, Any]) -> None:
    assert set(deployed) == DEPLOYMENTS
    for deployment in deployed.values():
        assert not deployment["pull_steps"]
        assert deployment["entrypoint"].startswith("flows.")


def test_nightly_skips_a_night_and_stages_queue(deployed: dict[str, Any]) -> None:
    nightly = deployed["nightly"]
    assert [schedule["schedule"]["timezone"] for schedule in nightly["schedules"]] == ["UTC"]
    assert nightly["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    for stage in STAGES:
        assert deployed[stage]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert deployed[stage]["global_concurrency_limit"]["limit"] == 1


def test_forms_have_bounds_and_descriptions(deployed: dict[str, Any]) -> None:
    form = deployed["negatives"]["parameter_openapi_schema"]["properties"]
    assert set(form) == {"run", "images", "changes", "force"}
    assert all(field.get("description") for field in form.values())
    definitions = deployed["pipeline"]["parameter_openapi_schema"]["definitions"]
    epsilon = definitions["NegativesConfig"]["properties"]["epsilon"]
    assert epsilon["minimum"] == 0
    assert epsilon["description"]


def test_run_shows_up_on_the_server_and_prints_its_results(server: Server) -> None:
    first = server.command("mbpo", "run", "--config", "deployments/smoke.yaml")
    assert "Run smoke: held-out questions" in first
    assert "report.html" in first
    runs = server.ask("/flow_runs/filter", flows={"name": {"any_": ["mbpo"]}})
    assert [run["state_type"] for run in runs] == ["COMPLETED"]

    before = children_cpu_s()
    second = server.command("mbpo", "run", "--config", "deployments/smoke.yaml")
    assert "everything is cached" in second
    assert children_cpu_s() - before < 15
    assert len(server.ask("/flow_runs/filter", flows={"name": {"any_": ["mbpo"]}})) == 1

    shown = json.loads(server.command("mbpo", "show", "evaluation", "--run", "smoke", "--json"))
    assert list(shown) == ["base", "trained", "difference"]
    for column in shown.values():
        assert {"prior_conflict_accuracy", "chair_i", "blind_gap"} <= set(column)
        assert set(column["neutral_accuracy"]) == {"value", "low", "high", "n"}
    pairs = json.loads(server.command("mbpo", "show", "pairs", "--run", "smoke", "--json"))["pairs"]
    assert pairs["rows"]["part"] + sum(pairs["dropped"].values()) >= 1
    assert list(Path(pairs["path"]).glob("part-*.parquet"))
    assert "cached" in server.command("mbpo", "explain", "--run", "smoke")
    assert "needed" in server.command("mbpo", "gc")


def test_a_worker_runs_a_stage_deployment(server: Server, deployed: dict[str, Any]) -> None:
    """After the run above: rerun its report from the server, as a click on the form does."""
    config = yaml.safe_load((ROOT / "deployments" / "smoke.yaml").read_text(encoding="utf-8"))
    parameters = {"run": config["run"], "changes": ["report.title=Again"]}
    run = server.ask(f"/deployments/{deployed['report']['id']}/create_flow_run", parameters=parameters)
    server.command("prefect", "worker", "start", "--pool", "mbpo", "--limit", "1", "--run-once")
    (found,) = server.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert found["state_type"] == "COMPLETED", found["state"]


def test_wrong_parameters_are_refused_at_submission(server: Server, deployed: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.ask(f"/deployments/{deployed['report']['id']}/create_flow_run", parameters={"run": "No Such Name!"})
    assert refused.value.code == 409


def test_entrypoints_and_forms_need_no_torch() -> None:
    document = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
    entrypoints = [deployment["entrypoint"] for deployment in document["deployments"]]
    assert {deployment["name"] for deployment in document["deployments"]} == DEPLOYMENTS
    script = (
        "import sys\n"
        "from prefect.utilities.callables import parameter_schema\n"
        "from prefect.utilities.importtools import import_object\n"
        f"for entrypoint in {entrypoints!r}:\n"
        "    flow = import_object(entrypoint)\n"
        "    assert flow.name and parameter_schema(flow.fn).properties, entrypoint\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules, 'deepspeed' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


def test_prefect_server_still_imports() -> None:
    """A fastapi that is too new breaks exactly this import."""
    subprocess.run([sys.executable, "-c", "import prefect.server.api.server"], check=True, capture_output=True)
