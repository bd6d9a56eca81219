"""`mbpo pool create` against a real server: idempotent, and its automations do what they are for."""

from __future__ import annotations

import http.server
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.service.automations import FAILED, OTHER_ZOMBIES, REFUSED, STALE, ZOMBIES
from flows.service.daemons import kill, marked
from tests.service.conftest import Service

EMIT = """
import json, sys
from prefect.events import emit_event
event, payload = json.loads(sys.argv[1])
resource = {"prefect.resource.id": "mbpo.run.night", "prefect.resource.name": "night"}
emit_event(event, resource=resource, payload=payload)
"""

SAVE = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
Webhook(method="POST", url=sys.argv[1], allow_private_urls=True).save("on-call")
shape = {"event": "a notification", "subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="mail", url=sys.argv[1], json_data=shape).save("mail")
Secret(value="x").save("token")
"""


def _refused(service: Service, *words: str, **variables: str) -> str:
    """The first line that a command, which must fail, says."""
    with pytest.raises(AssertionError) as refused:
        Service.command(_with(service, variables), *words)
    return str(refused.value)


def _with(service: Service, variables: dict[str, str]) -> Service:
    return Service(service.url, service.auth, service.folder, service.store, service.environment | variables)


@pytest.fixture(scope="module")
def told(service: Service) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A webhook of our own, saved as the block webhook/on-call; returns what waits for a message that says so."""
    arrived: queue.Queue[dict[str, Any]] = queue.Queue()

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not into the tests' output."""

    def wait_for(said: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while True:
            message = arrived.get(timeout=max(0.1, deadline - time.monotonic()))
            if said in message.values():
                return message

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    service.command("python", "-c", SAVE, f"http://127.0.0.1:{listening.server_port}/")
    service.command("mbpo", "pool", "create", "--notify", "webhook/on-call")
    yield wait_for
    listening.shutdown()


def test_again_changes_nothing_and_a_number_is_updated(service: Service) -> None:
    create = ["mbpo", "pool", "create", "--node", "other=4", "--node", "third=2"]
    assert "limit 'gpu:other': created with 4" in service.command(*create)
    again = service.command(*create)
    assert "created" not in again
    assert "updated" not in again
    assert again.count("unchanged") == 7  # pool, two queues, two limits, two automations
    assert "retention: finished flow runs are deleted after 90 days" in again
    create[4] = "other=8"
    changed = service.command(*create)
    assert "limit 'gpu:other': updated from 4 to 8" in changed
    assert changed.count("unchanged") == 6
    limits = {limit["name"]: limit["limit"] for limit in service.ask("/v2/concurrency_limits/filter")}
    assert (limits["gpu:other"], limits["gpu:third"]) == (8, 2)


def test_what_cannot_be_done_is_told(service: Service) -> None:
    create = ("mbpo", "pool", "create")
    assert "'x', 'y=z' is not a node" in _refused(service, *create, "--node", "x", "--node", "y=z")
    assert "refuses the auth string" in _refused(service, *create, PREFECT_API_AUTH_STRING="mbpo:wrong")
    assert "no Prefect server answers" in _refused(service, *create, PREFECT_API_URL="http://127.0.0.1:1/api")
    assert "PREFECT_API_URL is not set" in _refused(service, *create, PREFECT_API_URL="")
    assert "no block webhook/nobody" in _refused(service, *create, "--notify", "webhook/nobody")
    assert "'on-call' is not a block" in _refused(service, *create, "--notify", "on-call")


def test_urgent_runs_go_first(service: Service) -> None:
    queues = service.ask("/work_pools/mbpo/queues/filter")
    assert [entry["name"] for entry in sorted(queues, key=lambda entry: entry["priority"])] == ["urgent", "default"]


@pytest.mark.parametrize("event", ["mbpo.run.failed", "mbpo.promotion.refused"])
def test_events_are_forwarded(service: Service, told: Callable[[str], dict[str, Any]], event: str) -> None:
    payload = {"run": "night", "error": 'it "broke" <here>\nand there'}
    service.command("python", "-c", EMIT, json.dumps([event, payload]))
    message = told(event)
    assert message["payload"] == payload
    assert message["resource"]["prefect.resource.name"] == "night"
    assert message["text"].startswith("mbpo: ")


def test_a_notification_block_is_told(service: Service, told: Callable[[str], dict[str, Any]]) -> None:
    """E-mail and chat blocks get a subject and a body; a block that is neither is refused."""
    create = ("mbpo", "pool", "create", "--notify")
    assert "secret/token cannot be told anything" in _refused(service, *create, "secret/token")
    assert "updated" in service.command(*create, "custom-webhook/mail")
    payload = {"run": "night", "message": 'it "broke"'}
    service.command("python", "-c", EMIT, json.dumps(["mbpo.run.failed", payload]))
    message = told("a notification")
    assert message["subject"] == "mbpo: a run failed"
    assert json.loads(message["body"])["payload"] == payload
    assert "updated" in service.command(*create, "webhook/on-call")


def test_without_notify_what_forwards_stays(service: Service, told: Callable[[str], dict[str, Any]]) -> None:
    said = service.command("mbpo", "pool", "create")
    assert "updated" not in said
    assert said.count("left as it is") == 3
    automations = {entry["name"]: entry for entry in service.ask("/automations/filter")}
    assert {ZOMBIES, OTHER_ZOMBIES, FAILED, REFUSED, STALE} <= set(automations)
    for name in (FAILED, REFUSED, STALE, ZOMBIES):
        assert automations[name]["actions"][-1]["type"] == "call-webhook"


def test_nightly_is_watched_by_its_name(service: Service, told: Callable[[str], dict[str, Any]]) -> None:
    """What the trigger looks for is what the server's events of the deployment say."""
    (stale,) = [entry for entry in service.ask("/automations/filter") if entry["name"] == STALE]
    assert stale["trigger"]["within"] == 26 * 3600
    assert stale["trigger"]["posture"] == "Proactive"
    wanted = stale["trigger"]["match_related"]
    run_id = service.start_run("pipeline/nightly", base="smoke", config={"run": "night"})
    service.wait_for(run_id, "COMPLETED", timeout_s=600)
    asked = {"any_resource": {"id": [f"prefect.flow-run.{run_id}"]}, "event": {"name": stale["trigger"]["expect"]}}
    deadline = time.monotonic() + 60
    while not (events := service.ask("/events/filter", filter=asked)["events"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert any(wanted.items() <= related.items() for related in events[0]["related"])


def test_a_silent_run_is_marked_crashed(service: Service, told: Callable[[str], dict[str, Any]]) -> None:
    """Worker and flow process are killed at once: nobody is left who could tell the server."""
    run_id = service.start_run("smoke/manual")
    service.wait_for(run_id, "RUNNING")
    server = service.files.server.process()
    kill([process for process in marked(service.files.folder) if process != server])
    assert service.run_state(run_id) == "RUNNING"
    try:
        found = service.wait_for(run_id, "CRASHED", timeout_s=240)
        assert "No sign of life for 120 s" in found["state"]["message"]
        message = told("mbpo: a run died silently")
        assert message["resource"]["prefect.resource.id"] == f"prefect.flow-run.{run_id}"
    finally:
        service.up()


def test_doctor_finds_nothing_wrong(service: Service, told: Callable[[str], dict[str, Any]]) -> None:
    found = json.loads(service.command("mbpo", "doctor", "--json"))
    assert found["ok"]
    checks = {check["name"]: check for check in found["checks"]}
    assert not [check for check in checks.values() if check["status"] == "wrong"]
    for name in (
        "server",
        "auth",
        "server's clock",
        "retention",
        "pool mbpo",
        "workers",
        "silent runs",
        "notifications",
    ):
        assert checks[name]["status"] == "ok", checks[name]
    assert service.auth not in json.dumps(found)


def test_doctor_says_what_is_wrong_and_what_to_do(service: Service) -> None:
    """A paused automation and a limit that is not there; the table and the exit code say so."""
    (silent,) = [entry for entry in service.ask("/automations/filter") if entry["name"] == ZOMBIES]
    service.ask(f"/automations/{silent['id']}", "PATCH", enabled=False)
    try:
        node = {"MBPO_DEVICES": "fake:0,fake:1", "MBPO_NODE": "elsewhere", "COLUMNS": "200"}
        said = _refused(service, "mbpo", "doctor", **node)
    finally:
        service.ask(f"/automations/{silent['id']}", "PATCH", enabled=True)
    assert "prefect automation resume" in said
    assert "mbpo pool create --node elsewhere=2" in said
    assert [line.split("│")[1].strip() for line in said.splitlines() if line.strip().startswith("wrong")] == [
        "limit gpu:elsewhere",
        "silent runs",
    ]
    wrong_auth = _refused(service, "mbpo", "doctor", PREFECT_API_AUTH_STRING="mbpo:wrong")
    assert "refuses the auth string" in wrong_auth
