"""Prefect automations of ours: runs that died silently, and events that a person must hear of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows.service.prefect_api import ServiceError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

Telling = Callable[[str], Any]
"""Makes the action that tells a block something, given the subject."""

HEARTBEAT_S = 30
"""Seconds between the heartbeats of a flow run in the pool, the least that Prefect allows."""

PREFECT_HEARTBEAT_S = 180
"""Seconds between heartbeats where nobody says otherwise: Prefect's default."""

BEATS = 4
"""A run is taken for dead after as many heartbeats' time of silence; below three, healthy runs were (measured)."""

STALE_AFTER = timedelta(hours=26)
"""A nightly run is due every 24 h and may take two more."""

NIGHTLY = "nightly"
TAG = "mbpo"  # of every deployment; runs from a shell and subflows have none

ZOMBIES = "mbpo: silent runs of the pool are marked crashed"
OTHER_ZOMBIES = "mbpo: other silent runs are marked crashed"
FAILED = "mbpo: tell of a failed run"
REFUSED = "mbpo: tell of a refused promotion"
STALE = "mbpo: tell of a stale nightly"

_SUBJECT = {
    ZOMBIES: "mbpo: a run died silently",
    FAILED: "mbpo: a run failed",
    REFUSED: "mbpo: a checkpoint was not promoted",
    STALE: "mbpo: no nightly run was completed within 26 h",
}

# One JSON object; `text` is what chat services show.
_DETAILS = """\
"event": {{ (event.event or "") | tojson }}, "occurred": {{ (event.occurred | string) | tojson }},
 "resource": {{ (event.resource.root or {}) | tojson }}, "payload": {{ (event.payload or {}) | tojson }}\
"""


def heartbeat_s() -> int:
    """Seconds between heartbeats: PREFECT_FLOWS_HEARTBEAT_FREQUENCY, else ours."""
    return int(os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY") or HEARTBEAT_S)


def safe_window(beat_s: int) -> timedelta:
    """How long a healthy run may be silent."""
    return timedelta(seconds=BEATS * beat_s)


OTHER_WINDOW = safe_window(PREFECT_HEARTBEAT_S)


def ensure_automations(client: SyncPrefectClient, notify: str) -> list[str]:
    """Create what is missing, update what differs.

    Without `notify` there is nobody to tell: only the zombie automations are made, and automations that
    forward already are left alone.

    Returns:
        What was done, a line each.

    Raises:
        ServiceError: `notify` is not of the form TYPE/NAME, or there is no such block that can be told something.
    """
    there = {automation.name: automation for automation in client.read_automations()}
    telling = _telling(client, notify) if notify else None
    beat = heartbeat_s()
    tagged = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    wanted = [_zombies(ZOMBIES, safe_window(beat), tagged), _zombies(OTHER_ZOMBIES, OTHER_WINDOW, {})]
    if telling is not None:
        wanted[0].actions += [telling(_SUBJECT[ZOMBIES])]
        wanted += [_failed(telling), _refused(telling), _stale(telling)]
    elif ZOMBIES in there:
        wanted[0].actions += there[ZOMBIES].actions[1:]  # the block that an earlier call named
    lines = [_ensure(client, automation, there.get(automation.name)) for automation in wanted]
    if telling is not None:
        return lines
    forwarding = [name for name in (FAILED, REFUSED, STALE) if name in there]
    if not forwarding:
        return [*lines, "automations that tell a person: none; name a saved block with --notify TYPE/NAME"]
    return [*lines, *(f"automation {name!r}: left as it is" for name in forwarding)]


def _ensure(client: SyncPrefectClient, wanted: AutomationCore, there: Any) -> str:
    if there is None:
        client.create_automation(wanted)
        return f"automation {wanted.name!r}: created"
    # Whether it is enabled stays a person's choice.
    compared = {"description", "trigger", "actions"}
    if there.model_dump(include=compared) == wanted.model_dump(include=compared):
        return f"automation {wanted.name!r}: unchanged"
    client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))
    return f"automation {wanted.name!r}: updated"


def _zombies(name: str, window: timedelta, related: dict[str, str]) -> AutomationCore:
    """A run that began and then fell silent gets the state Crashed.

    Args:
        name: of the automation.
        window: how long a healthy run may be silent.
        related: labels of a resource that the run's events must name; empty for every run.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    beat = "prefect.flow-run.heartbeat"
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry")
    trigger = EventTrigger(
        after={beat, "prefect.flow-run.Running"},
        expect={beat, *(f"prefect.flow-run.{state}" for state in ends)},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=related,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=window,
    )
    silence = f"No sign of life for {window.total_seconds():.0f} s: the process or its machine is gone."
    return _automation(name, silence, trigger, [ChangeFlowRunState(state=StateType.CRASHED, message=silence)])


def _failed(telling: Telling) -> AutomationCore:
    return _on_event(FAILED, "mbpo.run.failed", telling)


def _refused(telling: Telling) -> AutomationCore:
    return _on_event(REFUSED, "mbpo.promotion.refused", telling)


def _on_event(name: str, event: str, telling: Telling) -> AutomationCore:
    from prefect.events.schemas.automations import EventTrigger, Posture

    trigger = EventTrigger(expect={event}, posture=Posture.Reactive, threshold=1, within=timedelta(0))
    return _automation(name, f"Forwards the event {event}.", trigger, [telling(_SUBJECT[name])])


def _stale(telling: Telling) -> AutomationCore:
    """Whatever a nightly run does starts the clock, only completing it starts it anew; then it tells once a day."""
    from prefect.events.schemas.automations import EventTrigger, Posture

    trigger = EventTrigger(
        after={"prefect.flow-run.*"},
        expect={"prefect.flow-run.Completed"},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.name": NIGHTLY, "prefect.resource.role": "deployment"},
        posture=Posture.Proactive,
        threshold=1,
        within=STALE_AFTER,
    )
    return _automation(STALE, "No nightly run was completed in time.", trigger, [telling(_SUBJECT[STALE])])


def _automation(name: str, description: str, trigger: Any, actions: list[Any]) -> AutomationCore:
    from prefect.events.schemas.automations import AutomationCore

    return AutomationCore(name=name, description=description, trigger=trigger, actions=actions)


def _telling(client: SyncPrefectClient, notify: str) -> Telling:
    """What makes the action that tells the block something."""
    from prefect.events.actions import CallWebhook, SendNotification
    from prefect.exceptions import ObjectNotFound

    kind, _, name = notify.partition("/")
    if not kind or not name:
        raise ServiceError(f"{notify!r} is not a block", where="--notify", expected="TYPE/NAME, e.g. webhook/on-call")
    try:
        block = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        raise ServiceError(
            f"the server has no block {notify}",
            where="--notify",
            remedy="Save it first: the server's page Blocks, or its type's save(NAME) from Python. "
            "Types: webhook, slack-webhook, sendgrid-email and other notification blocks.",
        ) from error
    if kind == "webhook":
        return lambda subject: CallWebhook(
            block_document_id=block.id, payload=f'{{"text": {json.dumps(subject)},\n {_DETAILS}}}'
        )
    capabilities = block.block_schema.capabilities if block.block_schema else []
    if "notify" not in capabilities:
        raise ServiceError(
            f"block {notify} cannot be told anything (it can: {', '.join(capabilities) or 'nothing'})",
            where="--notify",
            expected="a webhook or a notification block",
        )
    return lambda subject: SendNotification(block_document_id=block.id, subject=subject, body=f"{{{_DETAILS}}}")
