"""Prefect on PostgreSQL: a database cluster of its own on loopback, the service on it, and the method run twice."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.stages import STAGES
from tests.service.conftest import Service, free_port, running_service

USER, DATABASE = "mbpo", "prefect"


def programs() -> Path:
    """The folder of initdb and pg_ctl, which Debian keeps out of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    folders += [Path(found).resolve().parent for found in [shutil.which("initdb")] if found and not folders]
    assert folders, "PostgreSQL is not installed: run sh tests/service/packages.sh"
    return folders[-1]


def _version(folder: Path) -> float:
    return float(folder.parent.name)


def as_server(*words: str, **variables: str) -> str:
    """Run one of PostgreSQL's programs, which refuse to work for root."""
    words = (str(programs() / words[0]), *words[1:])
    if os.geteuid() == 0:
        words = ("runuser", "-u", "postgres", "--", *words)
    # To a file: pg_ctl's server keeps what it inherits, and a pipe would never end.
    with tempfile.TemporaryFile("w+") as told:
        done = subprocess.run(
            words, env={**os.environ, **variables}, cwd="/", stdout=told, stderr=told, check=False, timeout=120
        )
        told.seek(0)
        text = told.read()
    assert done.returncode == 0, f"{' '.join(words)}\n{text}"
    return text


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    """A cluster with a password on a free port; yields what psql needs to know."""
    # Not below pytest's folder, which only its own user may enter; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    password = folder / "password"
    password.write_text(secrets.token_hex(16), encoding="utf-8")
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (folder, password):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    data, port = folder / "data", str(free_port())
    try:
        as_server("initdb", "-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        as_server("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            login = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": USER, "PGPASSWORD": password.read_text()}
            as_server("createdb", DATABASE, **login)
            yield {**login, "PGDATABASE": DATABASE}
        finally:
            as_server("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def service(database: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`mbpo server up` with nothing but the database's URL in its environment."""
    login = f"{database['PGUSER']}:{database['PGPASSWORD']}@{database['PGHOST']}:{database['PGPORT']}"
    url = f"postgresql+asyncpg://{login}/{DATABASE}"
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, PREFECT_SERVER_DATABASE_CONNECTION_URL=url) as started:
        yield started


def states(service: Service, run_id: str) -> list[str]:
    """State names of a flow run's task runs."""
    runs: list[dict[str, Any]] = service.ask("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
    return [run["state"]["name"] for run in runs]


def counted(database: dict[str, str], table: str) -> dict[str, int]:
    """Rows of one of Prefect's tables by state, as PostgreSQL itself counts them; without runs that are to come."""
    query = f"select state_name, count(*) from {table} where state_name <> 'Scheduled' group by 1"
    lines = as_server("psql", "-At", "-c", query, **database).split()
    return {name: int(count) for name, _, count in (line.partition("|") for line in lines)}


def test_runs_are_kept_in_the_database(service: Service, database: dict[str, str]) -> None:
    """From the command line, then from the server's form: everything is reused, and the database says so."""
    assert "Run smoke: held-out questions" in service.command("mbpo", "run", "--config", "smoke")
    (run,) = [run for run in service.ask("/flow_runs/filter") if run["state_type"] != "SCHEDULED"]  # nights to come
    assert run["state_type"] == "COMPLETED", run["state"]
    done = states(service, run["id"])
    assert set(done) == {"Completed"}
    assert len(done) >= len(STAGES)
    assert counted(database, "flow_run") == {"Completed": 1}
    assert counted(database, "task_run") == {"Completed": len(done)}

    assert "everything is cached" in service.command("mbpo", "run", "--config", "smoke")
    again = service.start_run("pipeline/manual", base="smoke")
    service.wait_for(again, "COMPLETED", timeout_s=300)
    assert states(service, again) == ["Cached"] * len(done)
    assert counted(database, "flow_run") == {"Completed": 2}
    assert counted(database, "task_run") == {"Completed": len(done), "Cached": len(done)}


def test_its_password_stays_with_the_server(service: Service, database: dict[str, str]) -> None:
    """Neither the store nor any log holds it."""
    secret = database["PGPASSWORD"].encode()
    files = [path for path in service.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if secret in path.read_bytes()] == []
