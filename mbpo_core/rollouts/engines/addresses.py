"""Which endpoints may be asked: pictures and questions, and the key, leave the machine for nobody else."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import SplitResult, urlsplit

from mbpo_core.errors import ConfigError

DECLARED = "MBPO_ENDPOINTS"
"""Environment variable of the worker: further origins that may be asked, separated by commas."""

_REMEDY = f"Whoever runs the worker declares it: {DECLARED}=https://host:port (several separated by commas)."


def check_address(url: str) -> None:
    """Refuse an endpoint that is neither on this machine nor declared by the worker's environment.

    The address comes with a run's settings, which others may write than whoever runs the worker.

    Raises:
        ConfigError: there is no address, it is none of a server, it carries a secret, or nobody declared it.
    """
    if not url:
        raise ConfigError(
            "rollouts.engine is endpoint and rollouts.endpoint_url is empty",
            expected="the address of a server that speaks OpenAI's protocol",
            remedy="Set rollouts.endpoint_url, such as http://127.0.0.1:8000/v1.",
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"rollouts.endpoint_url is {url!r}", expected="http://host:port/v1, or https")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "rollouts.endpoint_url carries a user, a password or a query, which would be written into artifacts",
            expected="scheme, host, port and path alone",
            remedy="A key belongs into the environment variable MBPO_ENDPOINT_KEY.",
        )
    declared = [urlsplit(one.strip()) for one in os.environ.get(DECLARED, "").split(",") if one.strip()]
    if not is_loopback(parts.hostname) and _origin(parts) not in map(_origin, declared):
        raise ConfigError(
            f"rollouts.endpoint_url names {parts.hostname}, which is not this machine",
            expected="a loopback address, or a declared one",
            remedy=_REMEDY,
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
