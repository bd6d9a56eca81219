"""Reading every byte again and comparing it with the manifests; the memo of hashes is not asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from mbpo_core.errors import DamagedArtifact, StoreError
from mbpo_core.stage import ArtifactRef, Progress
from mbpo_core.store.core import Store
from mbpo_core.store.digests import digest_of
from mbpo_core.store.lineage import Address
from mbpo_core.store.manifest import Manifest, StoredFile
from mbpo_core.store.promotions import decisions

_CHUNK = 2**20
MEGABYTE = 10**6


class Problem(BaseModel):
    """One thing that is not as it was written."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["missing", "damaged", "manifest", "run"] = Field(
        description="A file is gone or has other bytes; a manifest, or a run's file, is not to be trusted."
    )
    where: str
    what: str
    remedy: str


class Verification(BaseModel):
    """What was looked at, and what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    artifacts: int = Field(description="Committed artifacts looked at.")
    unfinished: int = Field(description="Artifacts without a manifest; they are being made, or can be gone on with.")
    files: int
    bytes: int = Field(description="Bytes read.")
    problems: list[Problem]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def intact(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(
    store: Store, progress: Progress, *, addresses: Iterable[Address] | None = None, runs: Iterable[str] = ()
) -> Verification:
    """Compare every file with what its manifest says, and see where the pointers of runs lead.

    Args:
        progress: told the megabytes read.
        addresses: (stage, digest) of the artifacts to look at; all if None.
        runs: whose pointers are followed.
    """
    problems: list[Problem] = []
    manifests: list[Manifest] = []
    unfinished = 0
    for address in store.artifacts() if addresses is None else addresses:
        manifest = _manifest(store, address, problems)
        manifests += [manifest] if manifest else []
        unfinished += manifest is None and not store.is_committed(*address)
    meter = _Meter(progress, sum(file.size for manifest in manifests for file in manifest.stored_files()))
    count = 0
    for manifest in manifests:
        count += len(manifest.stored_files())
        problems += _check(store, manifest, meter.add)
    for run in runs:
        problems += _lost_pointers(store, run)
    return Verification(
        artifacts=len(manifests), unfinished=unfinished, files=count, bytes=meter.done, problems=problems
    )


class _Meter:
    """Bytes told as whole megabytes."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.done, self._progress = 0, progress
        if total >= MEGABYTE:
            progress.start("megabytes read", total // MEGABYTE)

    def add(self, count: int) -> None:
        before, self.done = self.done, self.done + count
        if (whole := self.done // MEGABYTE - before // MEGABYTE) > 0:
            self._progress.advance(whole)


def _manifest(store: Store, address: Address, problems: list[Problem]) -> Manifest | None:
    """An artifact's manifest, if it can be trusted."""
    where = f"{store.uri(*address)}/manifest.json"
    remedy = "Run the stage again: the artifact is made anew."
    try:
        manifest = store.manifest(*address)
    except DamagedArtifact as error:
        problems.append(Problem(kind="manifest", where=where, what=error.what, remedy=remedy))
        return None
    if manifest is None:
        return None
    if (manifest.stage, manifest.digest) != address:
        what = f"it is that of {manifest.stage} {manifest.digest[:12]}"
    elif digest_of(manifest.identity) != manifest.digest:
        what = "what it says went in does not have this digest"
    else:
        return manifest
    problems.append(Problem(kind="manifest", where=where, what=what, remedy=remedy))
    return None


def _check(store: Store, manifest: Manifest, read: Callable[[int], None]) -> Iterator[Problem]:
    """What is wrong with an artifact's files; nothing if it was replaced or deleted meanwhile."""
    base = store.base(manifest.stage, manifest.digest)
    found = [problem for file in manifest.stored_files() if (problem := _check_file(store, base, file, read))]
    if found and not _replaced(store, manifest):
        yield from found


def _check_file(store: Store, base: str, file: StoredFile, read: Callable[[int], None]) -> Problem | None:
    path = f"{base}/{file.path}"
    kind: Literal["missing", "damaged"] = "damaged"
    try:
        size = store.files.size(path)
        if size is None:
            kind, what = "missing", "the file is missing"
        elif size != file.size:
            what = f"the file has {size} bytes instead of {file.size}"
        elif _hash(store, path, read) != file.sha256:
            what = "the file's bytes have changed"
        else:
            return None
    except (OSError, StoreError) as error:
        what = f"the file cannot be read: {error}"
    where = f"{store.root}/{path}"
    return Problem(kind=kind, where=where, what=what, remedy="Run the stage again: what is damaged is made anew.")


def _hash(store: Store, path: str, read: Callable[[int], None]) -> str:
    total = hashlib.sha256()
    with store.files.open(path) as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            read(len(chunk))
    return total.hexdigest()


def _replaced(store: Store, manifest: Manifest) -> bool:
    try:
        now = store.manifest(manifest.stage, manifest.digest)
    except DamagedArtifact:
        return False
    return now is None or now.attempt != manifest.attempt


def _lost_pointers(store: Store, run: str) -> Iterator[Problem]:
    where, pointers = f"{store.root}/runs/{run}.json", dict[str, ArtifactRef]()
    try:
        pointers = store.run(run).pointers()
    except StoreError as error:
        yield Problem(kind="run", where=where, what=error.what, remedy=error.remedy)
    try:
        decisions(store, run)
    except StoreError as error:
        yield Problem(kind="run", where=error.where, what=error.what, remedy=error.remedy)
    for key, ref in pointers.items():
        if not store.is_committed(ref.stage, ref.digest):
            what = f"{key} names {ref.stage} {ref.digest[:12]}, which is not in the store"
            yield Problem(
                kind="run", where=where, what=what, remedy=f"Run it again: mbpo explain --run {run} tells how."
            )
