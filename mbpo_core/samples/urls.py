"""Pictures that rows name by URL: fetched once into a folder, under limits, and read from there ever after.

Fetching belongs to planning: what an import reads lies in the folder before its identity is told, and is part of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mbpo_core import __version__
from mbpo_core.config import SamplesConfig
from mbpo_core.samples.problems import Unusable

if TYPE_CHECKING:
    import ssl

    import httpx

_REDIRECTS = 3
_AT_ONCE = 8
_tried: set[Path] = set()  # failures of this process: a plan and its stage must find the same


class NotFetched(Exception):
    """Why a URL gave no picture."""


@dataclass(frozen=True)
class Limits:
    """What a fetch may do: hosts that are trusted, bytes of a picture, seconds for all of it."""

    hosts: frozenset[str]
    max_bytes: int
    timeout_s: float


class UrlFolder:
    """The pictures that were fetched: a file a URL, named by the sha256 of its text, or a file that says why not."""

    def __init__(self, config: SamplesConfig) -> None:
        self._folder = Path(config.url_folder)
        self._limits = Limits(frozenset(map(str.lower, config.url_hosts)), config.url_max_bytes, config.url_timeout_s)

    def read(self, url: str) -> bytes:
        """The bytes that were fetched; nothing is fetched here.

        Raises:
            Unusable: unreadable_image where fetching failed.
        """
        file, failure = self._files(url)
        if file.is_file():
            return file.read_bytes()
        reason = failure.read_text(encoding="utf-8") if failure.is_file() else "it has not been fetched"
        raise Unusable("unreadable_image", f"{url[:200]!r}: {reason}")

    def fetch(self, urls: Iterable[str]) -> list[Path]:
        """Fetch what is not there yet, several at once; what failed in an earlier process is tried again.

        Returns:
            The files of all URLs, failures included.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._fetched, urls))

    def _fetched(self, url: str) -> Path:
        file, failure = self._files(url)
        if file.is_file():
            return file
        if failure in _tried and failure.is_file():
            return failure
        try:
            _write(file, fetch(url, self._limits))
            failure.unlink(missing_ok=True)
        except NotFetched as problem:
            _write(failure, str(problem).encode())
            _tried.add(failure)
            return failure
        return file

    def _files(self, url: str) -> tuple[Path, Path]:
        name = hashlib.sha256(url.encode(errors="replace")).hexdigest()
        return self._folder / name, self._folder / f"{name}.failed"


def is_url(text: str) -> bool:
    """The text begins as a URL that could be fetched."""
    return text[:8].lower().startswith(("https://", "http://"))


def fetch(url: str, limits: Limits, *, trust: ssl.SSLContext | None = None) -> bytes:
    """The body of a URL, a picture or not.

    Only https is spoken, and only with public addresses, unless the host is declared. The address that was checked is
    the one that is called; every redirect is checked anew. No proxy, cookie or credential is used, and nothing that
    comes back is unpacked.

    Args:
        url: absolute.
        limits: see `Limits`.
        trust: certificates to believe; those of certifi if None.

    Raises:
        NotFetched: with the reason, which does not name the server's text.
    """
    import httpx

    deadline = time.monotonic() + limits.timeout_s
    headers = {"User-Agent": f"mbpo/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}
    try:
        with httpx.Client(
            trust_env=False, timeout=limits.timeout_s, headers=headers, verify=trust or _certificates()
        ) as client:
            for _ in range(_REDIRECTS + 1):
                target = httpx.URL(url)
                response = client.send(_request(client, target, limits), stream=True)
                try:
                    if not response.has_redirect_location:
                        return b"".join(_body(response, limits, deadline))
                    url = str(target.join(response.headers["location"]))
                finally:
                    response.close()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise NotFetched(f"{type(error).__name__} while it was fetched") from error
    raise NotFetched(f"more than {_REDIRECTS} redirects")


@cache
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context(trust_env=False)


def _request(client: httpx.Client, target: httpx.URL, limits: Limits) -> httpx.Request:
    """The request to an address of the host that has been looked at, so that no second look-up can lead elsewhere."""
    declared = target.host in limits.hosts
    if target.scheme != "https" and not (target.scheme == "http" and declared):
        raise NotFetched(f"{target.scheme or 'no'} protocol; only https is spoken, or http with a host of url_hosts")
    if not target.host or target.userinfo:
        raise NotFetched("the URL has no host" if not target.host else "the URL carries credentials")
    port = target.port or (443 if target.scheme == "https" else 80)
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(target.host, port, type=socket.SOCK_STREAM)]
    if not declared and not all(_is_public(address) for address in found):
        raise NotFetched(f"{target.host} is at a private address; name it in samples.url_hosts if that is meant")
    address = f"[{found[0]}]" if ":" in found[0] else found[0]
    return client.build_request(
        "GET",
        target.copy_with(host=address),
        headers={"Host": target.netloc.decode("ascii")},
        extensions={"sni_hostname": target.raw_host.decode("ascii")},
    )


def _is_public(address: str) -> bool:
    known = ipaddress.ip_address(address.partition("%")[0])
    return known.is_global and not known.is_multicast


def _body(response: httpx.Response, limits: Limits, deadline: float) -> Iterator[bytes]:
    if response.status_code != 200:
        raise NotFetched(f"the server answered {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise NotFetched("the answer is compressed")
    if int(response.headers.get("content-length", 0)) > limits.max_bytes:
        raise NotFetched(f"more than {limits.max_bytes} bytes (samples.url_max_bytes)")
    size = 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > limits.max_bytes:
            raise NotFetched(f"more than {limits.max_bytes} bytes (samples.url_max_bytes)")
        if time.monotonic() > deadline:
            raise NotFetched(f"it took longer than {limits.timeout_s:g} s (samples.url_timeout_s)")
        yield chunk


def _write(file: Path, data: bytes) -> None:
    """Whole or not at all."""
    fresh = file.with_name(f".{file.name}.{uuid4().hex}")
    fresh.write_bytes(data)
    os.replace(fresh, file)
