"""How long a Prefect server keeps what its flow runs left in the database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flows.service.check import Check

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def look_at_retention(client: SyncPrefectClient) -> Check:
    """Whether the server deletes finished flow runs; only its own environment can make it."""
    settings = client.request("GET", "/admin/settings").json()
    kinds = settings["server"]["services"]["db_vacuum"]["enabled"]
    if kinds is True or (isinstance(kinds, list) and "flow_runs" in kinds):
        days = settings["server"]["services"]["db_vacuum"]["retention_period"]
        return Check("retention", "ok", f"finished flow runs are deleted after {_period(days)}")
    remedy = "Set PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs for the server."
    return Check("retention", "warning", "flow runs are kept for ever: the database only grows", remedy)


def _period(value: object) -> str:
    """Seconds, or an ISO 8601 duration such as P90D, as people say it."""
    if isinstance(value, int | float):
        return f"{value / 86400:.0f} days"
    days = re.fullmatch(r"P(\d+)D", str(value))
    return f"{days[1]} days" if days else str(value)
