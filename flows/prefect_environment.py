"""Prefect's settings, made before Prefect is first imported: silent, offline, and in a place of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from flows.paths import prefect_home

SILENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}

# A result that is read back must be data; pickle would run what somebody wrote there.
RESULTS = {"PREFECT_RESULTS_DEFAULT_SERIALIZER": "json"}

# The embedded server takes 10-36 s to start on two cores; Prefect gives up after 20 by default.
EMBEDDED = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}

# The terminal shows our own lines; Prefect would add a traceback to an error that we print as prose.
# A server's log still gets everything.
CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
QUIET = {CONSOLE_LEVEL: "CRITICAL"}


def prepare_prefect(store: str) -> None:
    """Set what is not set already; a server named by PREFECT_API_URL is used, else the embedded one."""
    defaults = SILENT | QUIET | RESULTS
    if not os.environ.get("PREFECT_API_URL"):
        home = prefect_home(store)
        home.mkdir(parents=True, exist_ok=True)  # Prefect's server makes no parents
        defaults |= EMBEDDED | {"PREFECT_HOME": str(home)}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def prefect_runtime(store: str) -> Iterator[None]:
    """Everything a flow needs around it when it is started from the command line."""
    prepare_prefect(store)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Every flow run waits about a second for its heartbeat thread to end, and nobody watches an embedded server.
    changes = {} if os.environ.get("PREFECT_API_URL") else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(changes):
        yield


def end_embedded_server() -> None:
    """End Prefect's temporary server, a process of its own that outlives one which runs no exit handlers."""
    from prefect.server.api.server import SubprocessASGIServer

    for server in list(SubprocessASGIServer._instances.values()):
        server.stop()
