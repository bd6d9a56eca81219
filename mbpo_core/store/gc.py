"""Deleting what no run needs. A dry run unless told otherwise."""

from __future__ import annotations

import calendar
import datetime
import shutil
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mbpo_core.errors import LeaseHeld
from mbpo_core.store.attempts import attempts
from mbpo_core.store.core import Store
from mbpo_core.store.lease import read_lease
from mbpo_core.store.lineage import Address, reachable, readable_manifest

HOUR_S, DAY_S = 3600.0, 86_400.0

Reason = Literal["unused", "unfinished", "superseded"]


class Garbage(BaseModel):
    """Something that no run needs."""

    model_config = ConfigDict(frozen=True)

    stage: str
    digest: str
    path: str = Field(description="What is deleted, relative to the store's root.")
    reason: Reason = Field(description="superseded: the attempt that a forced rerun replaced.")
    bytes: int
    deleted: bool = False


def collect(
    store: Store, *, delete: bool = False, unused_age_s: float = HOUR_S, unfinished_age_s: float = 7 * DAY_S
) -> list[Garbage]:
    """Find, and with `delete` remove, what no run's pointer needs.

    A run needs what its pointers name now, and the inputs of those, and theirs. What a live
    worker writes is never touched.

    Args:
        unused_age_s: younger artifacts stay, because a run may be about to point to them.
        unfinished_age_s: younger killed attempts stay, because their parts can be adopted; caches written to more
            lately too.

    Returns:
        What was found, with its size in bytes and whether it is gone now.
    """
    needed = reachable(store)
    found: list[Garbage] = []
    for stage, digest in store.artifacts():
        if _leased(store, stage, digest):
            continue
        garbage = list(_garbage(store, stage, digest, needed, unused_age_s, unfinished_age_s))
        found += _delete(store, stage, digest, garbage) if garbage and delete else garbage
    found += _scratch_garbage(store, delete) + _copies_garbage(store, needed, delete, unused_age_s)
    return found + _cache_garbage(store, delete, unfinished_age_s)


def _garbage(
    store: Store, stage: str, digest: str, needed: set[Address], unused_age_s: float, unfinished_age_s: float
) -> Iterator[Garbage]:
    base, manifest = store.base(stage, digest), readable_manifest(store, stage, digest)
    tries = attempts(store.files, base)
    if not store.is_committed(stage, digest):
        if _attempt_age_s(store, base, tries) >= unfinished_age_s:
            yield _entry(store, stage, digest, base, "unfinished")
    elif (stage, digest) not in needed:
        made = datetime.datetime.fromisoformat(manifest.created).timestamp() if manifest else 0.0
        if time.time() - made >= unused_age_s:
            yield _entry(store, stage, digest, base, "unused")
    elif manifest is not None:
        for attempt in tries:
            if attempt != manifest.attempt:
                yield _entry(store, stage, digest, f"{base}/{attempt}", "superseded")


def _entry(store: Store, stage: str, digest: str, path: str, reason: Reason) -> Garbage:
    size = sum(store.files.walk(path).values())
    return Garbage(stage=stage, digest=digest, path=path, reason=reason, bytes=size)


def _delete(store: Store, stage: str, digest: str, garbage: list[Garbage]) -> list[Garbage]:
    """Under the artifact's lease, and the manifest first: nobody sees half an artifact."""
    base = store.base(stage, digest)
    try:
        with store.lease(stage, digest):
            for entry in garbage:
                if entry.path == base:
                    store.files.remove(f"{base}/manifest.json")
                    for attempt in attempts(store.files, base):
                        store.files.remove(f"{base}/{attempt}")
                else:
                    store.files.remove(entry.path)
    except LeaseHeld:  # somebody began to make it meanwhile
        return garbage
    with store.files.locked():
        store.files.prune(base)
    return [entry.model_copy(update={"deleted": not store.files.walk(entry.path)}) for entry in garbage]


def _scratch_garbage(store: Store, delete: bool) -> list[Garbage]:
    """Resumable state whose artifact was finished or deleted since."""
    found = []
    root = store.files.scratch("scratch")
    for folder in sorted(root.glob("*/*")):
        stage, digest = folder.parent.name, folder.name.rpartition("-")[0]
        unfinished = store.files.names(store.base(stage, digest)) and not store.is_committed(stage, digest)
        if unfinished or _leased(store, stage, digest):
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if delete:
            shutil.rmtree(folder, ignore_errors=True)
        path = f"scratch/{stage}/{folder.name}"
        found.append(
            Garbage(stage=stage, digest=digest, path=path, reason="unfinished", bytes=size, deleted=not folder.exists())
        )
    return found


def _copies_garbage(store: Store, needed: set[Address], delete: bool, unused_age_s: float) -> list[Garbage]:
    """Local copies of a remote store's checkpoints, on this machine, whose artifact no run needs."""
    kept, found = {digest for _, digest in needed}, []
    for folder in sorted(store.files.scratch("copies").glob("*")):
        digest = folder.name.partition("-")[0]
        if digest in kept or time.time() - folder.stat().st_mtime < unused_age_s:
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if delete:
            shutil.rmtree(folder, ignore_errors=True)
        path, gone = f"copies/{folder.name}", not folder.exists()
        found.append(Garbage(stage="", digest=digest, path=path, reason="unused", bytes=size, deleted=gone))
    return found


def _cache_garbage(store: Store, delete: bool, age_s: float) -> list[Garbage]:
    """Local caches, on this machine, that nobody has added to for long; they can be made again."""
    found = []
    for folder in sorted(store.files.scratch("cache").glob("*")):
        status = [file.stat() for file in (folder, *folder.rglob("*"))]
        if time.time() - max(one.st_mtime for one in status) < age_s:
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if delete:
            shutil.rmtree(folder, ignore_errors=True)
        path, gone = f"cache/{folder.name}", not folder.exists()
        found.append(Garbage(stage="", digest="", path=path, reason="unused", bytes=size, deleted=gone))
    return found


def _leased(store: Store, stage: str, digest: str) -> bool:
    lease = read_lease(store.files, f"{store.base(stage, digest)}/lease.json")
    return lease is not None and lease.live()


def _attempt_age_s(store: Store, base: str, tries: list[str]) -> float:
    """Seconds since an unfinished artifact was last worked on, as far as is known."""
    begun = [float(calendar.timegm(time.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S"))) for name in tries]
    lease = read_lease(store.files, f"{base}/lease.json")
    return time.time() - max([*begun, lease.heartbeat if lease else 0.0])
