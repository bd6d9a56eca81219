"""What a Prefect server must know of our machines: work pool, queues, limits and automations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows.console import say
from flows.prefect_environment import RESULTS
from flows.service.automations import ensure_automations, heartbeat_s
from flows.service.prefect_api import server_client
from flows.service.retention import look_at_retention
from mbpo_core.errors import ConfigError
from mbpo_core.launching.devices import node_devices, node_name

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL = "mbpo"

QUEUES = {"urgent": 1, "default": 2}
"""Queues of the pool and their priorities; runs of the first are taken first."""


def create_pool(nodes: list[str], notify: str) -> None:
    """Set up the server of PREFECT_API_URL and say what was done; a second call changes nothing.

    Args:
        nodes: machines as NAME=DEVICES; this one if empty.
        notify: TYPE/NAME of a saved block that is told of failures, regressions and a stale nightly; empty
            for none (automations that forward already stay as they are).

    Raises:
        ConfigError: a node is not of the form NAME=DEVICES.
        ServiceError: the server is not there, refuses the auth string, or has no such block.
    """
    limits = parse_nodes(nodes)
    with server_client() as client:
        lines = [_ensure_pool(client), *_ensure_queues(client), *_ensure_limits(client, limits)]
        lines += ensure_automations(client, notify)
        retention = look_at_retention(client)
    lines.append(f"retention: {retention.found}{f'. {retention.remedy}' if retention.remedy else ''}")
    for line in lines:
        say(line)


def parse_nodes(nodes: Sequence[str]) -> dict[str, int]:
    """Devices by node.

    Raises:
        ConfigError: names every node that is wrong.
    """
    if not nodes:
        return {node_name(): len(node_devices())}
    parts = [node.rpartition("=") for node in nodes]
    wrong = [node for node, (name, _, count) in zip(nodes, parts, strict=True) if not name or not count.isdecimal()]
    if wrong:
        raise ConfigError(
            f"{', '.join(map(repr, wrong))} is not a node", where="--node", expected="NAME=DEVICES, e.g. gpu-1=8"
        )
    return {name: int(count) for name, _, count in parts}


def pool_environment() -> dict[str, str]:
    """What every flow run of the pool gets, whichever machine's worker starts it."""
    return {
        # The zombie automation's window is a multiple of this.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(heartbeat_s()),
        **RESULTS,
    }


def _ensure_pool(client: SyncPrefectClient) -> str:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=_job_template({})))
        return f"work pool {POOL}: created"
    template = _job_template(pool.base_job_template)
    if template == pool.base_job_template:
        return f"work pool {POOL}: unchanged"
    client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
    return f"work pool {POOL}: updated"


def _job_template(template: dict[str, Any]) -> dict[str, Any]:
    """A process pool's template with our environment as its default; what else was changed in it stays."""
    import copy

    from prefect.workers.process import ProcessWorker

    template = copy.deepcopy(template or ProcessWorker.get_default_base_job_template())
    variables = template.setdefault("variables", {}).setdefault("properties", {})
    environment = variables.setdefault("env", {"type": "object"})
    environment["default"] = {**(environment.get("default") or {}), **pool_environment()}
    return template


def _ensure_queues(client: SyncPrefectClient) -> list[str]:
    there = {queue.name: queue for queue in client.read_work_queues(work_pool_name=POOL)}
    lines = []
    for name, priority in QUEUES.items():
        if name not in there:
            client.create_work_queue(name, work_pool_name=POOL, priority=priority)
            lines.append(f"queue {name}: created")
        elif there[name].priority != priority and name == next(iter(QUEUES)):
            client.update_work_queue(there[name].id, priority=priority)
            lines.append(f"queue {name}: updated to priority {priority}")
        else:
            lines.append(f"queue {name}: unchanged")
    return lines


def _ensure_limits(client: SyncPrefectClient, nodes: dict[str, int]) -> list[str]:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate

    there = {limit.name: limit.limit for limit in client.read_global_concurrency_limits(limit=200)}
    lines = []
    for node, devices in nodes.items():
        name = f"gpu:{node}"
        if devices == 0:
            lines.append(f"limit {name!r}: none, {node} has no accelerator")
        elif name not in there:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=devices))
            lines.append(f"limit {name!r}: created with {devices}")
        elif there[name] != devices:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=devices))
            lines.append(f"limit {name!r}: updated from {there[name]} to {devices}")
        else:
            lines.append(f"limit {name!r}: unchanged, {devices}")
    return lines
