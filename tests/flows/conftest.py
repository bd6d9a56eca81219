"""Prefect for these tests only: a database and server of their own, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from flows.prefect_environment import SILENT

os.environ.update(SILENT)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary Prefect server and results folder; flow runs do not wait for a heartbeat thread to end."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings(
            {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("results")}
        ),
    ):
        yield


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Put the environment back as it was: commands set up Prefect through it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
