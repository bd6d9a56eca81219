"""A lock between processes on an object store: an object that one of them creates, and removes again."""

from __future__ import annotations

import logging
import random
import time
import uuid
from typing import Any

from mbpo_core.errors import StoreError
from mbpo_core.store.conditional import ConditionalWrites

STALE_S = 30.0
"""Whoever has kept the lock this long is taken to be dead: locked steps take a second. Shorter than an artifact's lease
lasts, because its heartbeats need the lock."""

_WAIT_S = 300.0
_log = logging.getLogger(__name__)


class RemoteLock:
    """The lock of one tree, for processes on any machine; not for threads of one process.

    S3 decides who creates the object. A dead holder's is taken over by one conditional write, after the taker has seen
    it unchanged for `STALE_S` by its own clock: clocks of different machines are never compared.

    Args:
        filesystem: of s3fs.
        writes: on it.
        path: bucket and key.
    """

    def __init__(self, filesystem: Any, writes: ConditionalWrites, path: str) -> None:
        self._fs, self._writes, self._path = filesystem, writes, path
        self._token, self._since = b"", 0.0

    def take(self) -> None:
        """Wait for the lock.

        Raises:
            StoreError: it stayed with others for five minutes.
        """
        self._token = uuid.uuid4().hex.encode()
        began = seen_at = time.monotonic()
        seen, pause_s = "", 0.05
        while not self._writes.create(self._path, self._token):
            tag = self._writes.tag(self._path)
            if tag != seen:
                seen, seen_at = tag, time.monotonic()
            elif tag and time.monotonic() - seen_at > STALE_S and self._writes.replace(self._path, self._token, tag):
                _log.warning("took over %s from a process that died with it", self._path)
                break
            if time.monotonic() - began > _WAIT_S:
                raise StoreError(
                    "other processes have kept the store's lock for five minutes",
                    where=f"s3://{self._path}",
                    remedy="Look for processes that hang; the object may be deleted once none works on this store.",
                )
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, 1.0)
        self._since = time.monotonic()

    def give_back(self) -> None:
        """Let the next one in."""
        if time.monotonic() - self._since > STALE_S and not self._writes.holds(self._path, self._token):
            _log.warning("%s was taken over: this process was stopped while it had it", self._path)
        else:
            self._fs.rm_file(self._path)
