"""What belongs to one store's Prefect server on this machine: auth string, pid files, logs, settings."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from flows.paths import STORE_VARIABLE, prefect_home
from flows.prefect_environment import RESULTS, SILENT
from flows.service.daemons import Daemon

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """What belongs to one store's server on this machine."""

    store: str

    @property
    def folder(self) -> Path:
        """Auth string, pid files and logs."""
        return prefect_home(self.store) / "service"

    @property
    def auth_file(self) -> Path:
        """The string that server and clients share; readable by its owner only."""
        return self.folder / "auth"

    @property
    def url_file(self) -> Path:
        """The address of the API of the server that runs, or ran last."""
        return self.folder / "url"

    @property
    def server(self) -> Daemon:
        """The Prefect server."""
        return Daemon("server", self.folder)

    @property
    def worker(self) -> Daemon:
        """The worker of this machine."""
        return Daemon("worker", self.folder)

    def make_folder(self) -> None:
        """Make the folder and, once, the auth string."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        try:
            descriptor = os.open(self.auth_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"mbpo:{secrets.token_urlsafe(32)}")

    def client_environment(self) -> dict[str, str]:
        """What a client of the server needs."""
        return {
            "PREFECT_API_URL": self.url_file.read_text(encoding="utf-8"),
            "PREFECT_API_AUTH_STRING": self.auth_file.read_text(encoding="utf-8"),
        }

    def server_environment(self, port: int) -> dict[str, str]:
        """The server's settings: this machine only, nobody without the auth string, no page of another origin."""
        origins = [f"http://{name}:{port}" for name in (HOST, "localhost")]
        settings = {
            "PREFECT_HOME": str(prefect_home(self.store)),
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_API_AUTH_STRING": self.auth_file.read_text(encoding="utf-8"),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        }
        defaults = {
            # Flow runs are kept for ever unless asked otherwise.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # Relative, so that the pages also work through a proxy or a forwarded port.
            "PREFECT_UI_API_URL": "/api",
        }
        return {**defaults, **clean_environment(), **SILENT, **settings}

    def worker_environment(self) -> dict[str, str]:
        """The worker's settings; its flow runs inherit them."""
        home = {"PREFECT_HOME": str(prefect_home(self.store)), STORE_VARIABLE: self.store}
        return {**client_only(clean_environment()), **SILENT, **RESULTS, **home, **self.client_environment()}


def clean_environment() -> dict[str, str]:
    """This environment without another server's address, secret or profile."""
    foreign = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_HOME")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def client_only(environment: dict[str, str]) -> dict[str, str]:
    """Without the server's own settings: the password of its database is nothing that flow runs should have."""
    own = ("PREFECT_SERVER_", "PREFECT_API_DATABASE_")
    return {name: value for name, value in environment.items() if not name.startswith(own)}
