"""The Prefect server that PREFECT_API_URL names, for commands that set it up or look at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.prefect_environment import QUIET, SILENT
from mbpo_core.errors import MbpoError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


class ServiceError(MbpoError):
    """A Prefect server is not there, does not let us in, or lacks what was asked for."""


@contextmanager
def server_client() -> Iterator[SyncPrefectClient]:
    """A client of the server, authorised by PREFECT_API_AUTH_STRING.

    Raises:
        ServiceError: no server is named, it cannot be reached, or it refuses the auth string.
    """
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        raise ServiceError(
            "PREFECT_API_URL is not set",
            remedy="Start a server with mbpo server up and export the two lines it prints.",
        )
    for name, value in (SILENT | QUIET).items():
        os.environ.setdefault(name, value)
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        try:
            yield client
        except httpx.TransportError as error:
            raise ServiceError(
                f"no Prefect server answers ({error})",
                where=url,
                remedy="Start it with mbpo server up, or correct PREFECT_API_URL.",
            ) from error
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 401:
                raise
            raise ServiceError(
                "the Prefect server refuses the auth string",
                where=url,
                remedy="Set PREFECT_API_AUTH_STRING to the server's; mbpo server up prints how.",
            ) from error
