"""What every flow does when it ends badly: free the devices, tell whoever listens, and say so even if killed.

Prefect finds hooks by their module and name, and calls them with exactly these arguments, some in another process.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.forms import UNNAMED
from flows.paths import named_config
from mbpo_core.config import load_config
from mbpo_core.errors import MbpoError

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

FAILED = "mbpo.run.failed"
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"
_MESSAGE_LENGTH = 2000
_log = logging.getLogger(__name__)


def free_devices(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Kill what a cancelled or crashed run left running; its device leases end with it."""
    from mbpo_core.launching.reaping import reap

    for pid in reap():
        _log.warning("flow run %s left process %s behind; it was killed", flow_run.name, pid)


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Emit `mbpo.run.failed`, which an automation may forward; whether anybody hears it changes nothing."""
    from prefect.events import emit_event

    run = run_name(flow_run.parameters)
    resource = {"prefect.resource.id": f"mbpo.run.{run}", "prefect.resource.name": run}
    payload = {
        "run": run,
        "flow": flow.name,
        "flow_run": flow_run.name,
        "state": state.name or state.type.value,
        "message": (state.message or "")[:_MESSAGE_LENGTH],
    }
    related = [{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}]
    with contextlib.suppress(Exception):
        emit_event(FAILED, resource, related=related, payload=payload)


SERVICE: dict[str, Any] = {
    "on_cancellation": [free_devices],
    "on_crashed": [free_devices, tell_failure],
    "on_failure": [tell_failure],
    "persist_result": False,  # the store has what was made; only tasks keep a reference to it
    "result_serializer": "json",
}
"""Options of every flow: its hooks, and results that are data, never code."""


def run_name(parameters: dict[str, Any]) -> str:
    """The run that a flow run was about, as far as its parameters say; "default" otherwise."""
    given = parameters.get("config")
    named = parameters.get("run") or (given.get("run") if isinstance(given, dict) else getattr(given, "run", ""))
    if named in (None, "", UNNAMED) and parameters.get("base"):
        with contextlib.suppress(MbpoError):
            named = load_config(named_config(str(parameters["base"]))).run
    return str(named or UNNAMED)


@functools.cache
def follow_worker() -> None:
    """In a process that a Prefect worker started: end soon after that worker does, tell the server so, and obey it."""
    if flow_run := os.environ.get(_FLOW_RUN):
        from mbpo_core.launching.reaping import follow_parent, insist

        if threading.current_thread() is threading.main_thread():
            insist(signal.SIGTERM)
        follow_parent(functools.partial(_report_crash, UUID(flow_run)))


def _report_crash(flow_run_id: UUID) -> None:
    """The worker that would have told the server is gone; a run that has ended already stays as it is."""
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run_id).state
        if state is not None and state.is_final():
            return
        client.set_flow_run_state(
            flow_run_id, Crashed(message="The worker that ran this ended; its processes were ended too."), force=True
        )
