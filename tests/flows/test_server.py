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

DEPLOYMENTS = {"pipeline/manual", "pipeline/nightly", "smoke/manual", "explain/manual", "gc/weekly"} | {
    f"{stage}/manual" for stage in STAGES
}


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
    """All deployments by flow and name, deployed outside the checkout with nothing but the installed package."""
    (server.folder / "deployments").mkdir()
    shutil.copy(ROOT / "deployments" / "prefect.yaml", server.folder / "deployments")
    server.command("mbpo", "pool", "create")
    deploy = "prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all"
    server.command(*deploy.split())
    flows = {flow["id"]: flow["name"] for flow in server.ask("/flows/filter")}
    found = server.ask("/deployments/filter")
    return {f"{flows[deployment['flow_id']]}/{deployment['name']}": deployment for deployment in found}


def test_everything_deploys(deployed: dict[str, Any]) -> None:
    assert set(deployed) == DEPLOYMENTS
    for deployment in deployed.values():
        assert not deployment["pull_steps"]
        assert deployment["entrypoint"].startswith("flows.")


def test_nightly_skips_a_night_and_the_others_queue(deployed: dict[str, Any]) -> None:
    scheduled = {name: one["schedules"] for name, one in deployed.items() if one["schedules"]}
    assert set(scheduled) == {"pipeline/nightly", "gc/weekly"}
    for name, schedules in scheduled.items():
        assert [schedule["schedule"]["timezone"] for schedule in schedules] == ["UTC"]
        assert deployed[name]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert deployed["gc/weekly"]["parameters"] == {"delete": True}
    for name in DEPLOYMENTS - set(scheduled):
        assert deployed[name]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert {one["global_concurrency_limit"]["limit"] for one in deployed.values()} == {1}


STAGE_FORM = ["run", "upstream", "settings", "changes", "mode", "dry_run", "fields"]
OWN_FIELDS = {"negatives": ["images"], "rollouts": ["round_index"], "training": ["round_index", "target"]}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_form_has_everything_with_bounds_and_descriptions(deployed: dict[str, Any], stage: str) -> None:
    schema = deployed[f"{stage}/manual"]["parameter_openapi_schema"]
    form = schema["properties"]
    assert set(form) == {*STAGE_FORM, *OWN_FIELDS.get(stage, [])}
    assert all(field.get("description") and field["title"] == name for name, field in form.items())
    assert form["mode"]["enum"] == ["reuse", "resume", "rerun"]
    assert not schema.get("required"), "a form that is left as shown can be submitted"
    (section,) = [definition for name, definition in schema["definitions"].items() if name.endswith("Config")]
    assert section["additionalProperties"] is False
    assert all(field.get("description") for field in section["properties"].values())


def test_the_pipeline_form_has_no_field_that_the_page_cannot_show(deployed: dict[str, Any]) -> None:
    schema = deployed["pipeline/manual"]["parameter_openapi_schema"]
    assert set(schema["properties"]) == {"config", "base", "start_at", "only", "force", "dry_run", "fields"}
    epsilon = schema["definitions"]["NegativesConfig"]["properties"]["epsilon"]
    assert epsilon["minimum"] == 0
    for name, deployment in deployed.items():
        for banned in ("anyOf", "oneOf", '"format": "path"', "uniqueItems", "writeOnly"):
            assert banned not in json.dumps(deployment["parameter_openapi_schema"]), (name, banned)


@pytest.mark.slow
def test_run_shows_up_on_the_server_and_prints_its_results(server: Server) -> None:
    first = server.command("mbpo", "run", "--config", "deployments/smoke.yaml")
    assert "Run smoke: held-out questions" in first
    assert "report.html" in first
    runs = server.ask("/flow_runs/filter", flows={"name": {"any_": ["pipeline"]}})
    runs = [run for run in runs if run["state_type"] != "SCHEDULED"]  # nights to come
    assert [run["state_type"] for run in runs] == ["COMPLETED"]
    notes = server.ask("/artifacts/filter", flow_runs={"id": {"any_": [runs[0]["id"]]}}, limit=200)
    known = {note["key"]: note["type"] for note in notes}
    assert known["mbpo-rollouts-0-rewards"] == "table"
    assert known["mbpo-training-0-progress"] == "progress"

    before = children_cpu_s()
    second = server.command("mbpo", "run", "--config", "deployments/smoke.yaml")
    assert "everything is cached" in second
    assert children_cpu_s() - before < 15
    asked = server.ask("/flow_runs/filter", flows={"name": {"any_": ["pipeline"]}})
    assert len([run for run in asked if run["state_type"] != "SCHEDULED"]) == 1

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


@pytest.mark.slow
def test_a_worker_runs_a_stage_deployment(server: Server, deployed: dict[str, Any]) -> None:
    """After the run above: rerun its report from the server, as a click on the form does."""
    form = deployed["report/manual"]["parameter_openapi_schema"]["properties"]
    shown = {name: field["default"] for name, field in form.items() if "default" in field}
    parameters = shown | {"run": "smoke", "settings": shown["settings"] | {"title": "Again"}}
    run = server.ask(f"/deployments/{deployed['report/manual']['id']}/create_flow_run", parameters=parameters)
    server.command("prefect", "worker", "start", "--pool", "mbpo", "--limit", "1", "--run-once")
    (found,) = server.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert found["state_type"] == "COMPLETED", found["state"]
    notes = server.ask("/artifacts/filter", flow_runs={"id": {"any_": [run["id"]]}}, limit=200)
    plan = next(note["data"] for note in notes if note["key"] == "mbpo-plan")
    assert r"CONFIG report.title MBPO smoke test → Again" in plan
    assert {"mbpo-report", "mbpo-report-manifest", "mbpo-report-report", "mbpo-stale"} <= {n["key"] for n in notes}
    settings = json.loads(server.command("mbpo", "show", "report", "--run", "smoke", "--json"))
    assert "Again" in Path(settings["report"]["path"]).read_text(encoding="utf-8")


WRONG = {
    "a run's name": ("report/manual", {"run": "No Such Name!"}),
    "an unknown field": ("pairs/manual", {"settings": {"shares": 0.5}}),
    "a bound": ("negatives/manual", {"settings": {"epsilon": -1}}),
    "a word": ("training/manual", {"mode": "again"}),
    "a round": ("training/manual", {"round_index": -1}),
    "a change": ("training/manual", {"changes": ["beta"]}),
    "a path": ("pipeline/manual", {"base": "../../etc/passwd"}),
    "a nested bound": ("pipeline/manual", {"config": {"training": {"beta": -1}}}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_parameters_are_refused_at_submission(server: Server, deployed: dict[str, Any], case: str) -> None:
    name, parameters = WRONG[case]
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.ask(f"/deployments/{deployed[name]['id']}/create_flow_run", parameters=parameters)
    assert refused.value.code == 409


def test_entrypoints_and_forms_need_no_torch() -> None:
    document = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
    entrypoints = [deployment["entrypoint"] for deployment in document["deployments"]]
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
