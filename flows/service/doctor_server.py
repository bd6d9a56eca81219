"""What `mbpo doctor` looks at on the Prefect server."""

from __future__ import annotations

import email.utils
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flows.service.automations import FAILED, OTHER_ZOMBIES, PREFECT_HEARTBEAT_S, REFUSED, STALE, ZOMBIES
from flows.service.check import Check, compare_clock
from flows.service.pool import POOL, QUEUES
from flows.service.prefect_api import server_client
from flows.service.retention import look_at_retention
from mbpo_core.launching.devices import node_devices, node_name

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_CREATE = "Run mbpo pool create."


def look_at_server(url: str) -> Iterator[Check]:
    """Server, pool, workers, limits, automations and schedules.

    Args:
        url: of the API; empty if none is set.

    Raises:
        ServiceError: nothing answers there, or the auth string is refused.
    """
    if not url:
        found = "PREFECT_API_URL is not set: Prefect's embedded server is used, which loses task-run records at its end"
        yield Check("server", "warning", found, "For runs worth keeping, start a server: mbpo server up.")
        return
    with server_client() as client:
        yield _look_at_version(client, url)
        yield from _look_at_door(url)
        yield look_at_retention(client)
        yield from _look_at_pool(client)
        yield _look_at_limit(client)
        yield from _look_at_automations(client)
        yield from _look_at_schedules(client)


def _look_at_version(client: SyncPrefectClient, url: str) -> Check:
    import prefect
    from packaging.version import Version

    server, own = client.api_version(), prefect.__version__
    if server == own:
        return Check("server", "ok", f"Prefect {server} at {url}")
    found = f"Prefect {server} at {url}, but {own} here"
    remedy = "Install the same version on both; upgrade the server first."
    return Check("server", "wrong" if Version(server) < Version(own) else "warning", found, remedy)


def _look_at_door(url: str) -> Iterator[Check]:
    """Without the auth string nobody may be let in; the answer also tells the server's time."""
    try:
        with urllib.request.urlopen(f"{url}/admin/version", timeout=30) as answer:
            code, date = answer.status, answer.headers["Date"]
    except urllib.error.HTTPError as error:
        code, date = error.code, error.headers["Date"]
    if code == 401:
        yield Check("auth", "ok", "required")
    else:
        remedy = "Set PREFECT_SERVER_API_AUTH_STRING; mbpo server up does."
        yield Check("auth", "warning", "none: whoever reaches the server may start runs", remedy)
    if date:
        yield compare_clock("server's clock", email.utils.parsedate_to_datetime(date).timestamp() - time.time())


def _look_at_pool(client: SyncPrefectClient) -> Iterator[Check]:
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        yield Check(f"pool {POOL}", "wrong", "is not there", _CREATE)
        return
    queues = {queue.name for queue in client.read_work_queues(work_pool_name=POOL)}
    missing = [name for name in QUEUES if name not in queues]
    if missing:
        yield Check(f"pool {POOL}", "wrong", f"lacks queue {', '.join(missing)}", _CREATE)
    elif pool.is_paused:
        remedy = f"prefect work-pool resume {POOL}"
        yield Check(f"pool {POOL}", "warning", "is paused: no worker takes a run", remedy)
    else:
        yield Check(f"pool {POOL}", "ok", f"queues {', '.join(sorted(queues))}")
    workers = client.read_workers_for_work_pool(POOL)
    online = sorted(worker.name for worker in workers if worker.status == WorkerStatus.ONLINE)
    if online:
        yield Check("workers", "ok", f"online: {', '.join(online)}")
    else:
        remedy = f"mbpo server up, or on another machine: prefect worker start --pool {POOL} --limit 1"
        yield Check("workers", "wrong", "none is online", remedy)


def _look_at_limit(client: SyncPrefectClient) -> Check:
    name, devices = f"gpu:{node_name()}", len(node_devices())
    limits = {limit.name: limit.limit for limit in client.read_global_concurrency_limits(limit=200)}
    if limits.get(name, 0) == devices:
        return Check(
            f"limit {name}", "ok", f"{devices} accelerators" if devices else "none, as there is no accelerator"
        )
    found = f"{limits.get(name, 'none')}, but this node has {devices} accelerators"
    return Check(f"limit {name}", "wrong", found, f"Run mbpo pool create --node {node_name()}={devices}.")


def _look_at_automations(client: SyncPrefectClient) -> Iterator[Check]:
    from prefect.events.schemas.automations import EventTrigger

    there = {automation.name: automation for automation in client.read_automations()}
    for name, beat_s in ((ZOMBIES, _pool_heartbeat_s(client)), (OTHER_ZOMBIES, PREFECT_HEARTBEAT_S)):
        label = "silent runs" if name == ZOMBIES else "other silent runs"
        if name not in there:
            yield Check(label, "wrong", "would stay Running for ever: the automation is not there", _CREATE)
            continue
        trigger = there[name].trigger
        window_s = trigger.within.total_seconds() if isinstance(trigger, EventTrigger) else 0.0
        found = f"marked crashed after {window_s:.0f} s, heartbeat every {beat_s} s"
        if not there[name].enabled:
            yield Check(label, "wrong", "the automation is paused", f"prefect automation resume {name!r}")
        elif window_s < 3 * beat_s:
            yield Check(label, "wrong", f"{found}: healthy runs would be too", _CREATE)
        else:
            yield Check(label, "ok", found)
    telling = [name for name in (FAILED, REFUSED, STALE) if name in there and there[name].enabled]
    if len(telling) == 3:
        yield Check("notifications", "ok", "failure, regression and a stale nightly are told")
    else:
        remedy = "Save a block on the server, then: mbpo pool create --notify TYPE/NAME."
        yield Check("notifications", "warning", "nobody is told of failures", remedy)


def _pool_heartbeat_s(client: SyncPrefectClient) -> int:
    """What flow runs of the pool are told; Prefect's default if nothing."""
    from prefect.exceptions import ObjectNotFound

    try:
        template = client.read_work_pool(POOL).base_job_template
    except ObjectNotFound:
        return PREFECT_HEARTBEAT_S
    environment = template.get("variables", {}).get("properties", {}).get("env", {}).get("default") or {}
    return int(environment.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY") or PREFECT_HEARTBEAT_S)


def _look_at_schedules(client: SyncPrefectClient) -> Iterator[Check]:
    """A schedule without runs to come is one that the server does not carry out."""
    deployments = client.request("POST", "/deployments/filter", json={}).json()
    for deployment in deployments:
        active = [entry for entry in deployment["schedules"] if entry["active"]]
        if not active or deployment["paused"]:
            continue
        body = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": 1,
        }
        coming = client.request("POST", "/flow_runs/filter", json=body).json()
        label = f"schedule {deployment['name']}"
        if coming:
            yield Check(label, "ok", f"next run {coming[0]['expected_start_time']}")
        else:
            remedy = "Wait a minute after deploying; then look at the server's log for errors of its scheduler."
            yield Check(label, "warning", "no run is to come", remedy)
