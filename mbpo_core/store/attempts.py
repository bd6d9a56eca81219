"""Attempts at an artifact: shares of one that several processes make, and how a new one adopts finished parts."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from mbpo_core.errors import DamagedArtifact
from mbpo_core.store.checks import ArtifactFolder
from mbpo_core.store.files import Files
from mbpo_core.store.manifest import DROPPED, Sidecar, StoredFile

_ATTEMPT = re.compile(r"^\d{8}T\d{6}-[0-9a-f]{8}$")
_SIDECAR = re.compile(r"^[a-z_]+-\d{5}\.json$")


def part_name(table: str, index: int, owner: str = "part") -> str:
    """File name of a part without its ending; dropped rows of a further table carry its name."""
    return f"{table}-{index:05d}" if owner == "part" else f"{table}-{owner}-{index:05d}"


def new_attempt() -> str:
    """A name that no other attempt has, and that sorts after older ones."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"


def attempts(files: Files, base: str) -> list[str]:
    """Names of an artifact's attempts, oldest first."""
    return [name for name in files.names(base) if _ATTEMPT.match(name)]


@dataclass(frozen=True)
class Share:
    """One process's part of an attempt that several make together.

    Attributes:
        index, of: parts whose number leaves `index` when divided by `of` are this one's.
        attempt: its name, which the process that puts the shares together knows.
    """

    index: int
    of: int
    attempt: str


class ShareDone(Exception):
    """A share is done: what the stage asks for next needs the parts of the others too."""


class Leftovers:
    """Finished parts of older attempts at the same artifact, made by the same code.

    Args:
        only: names of the attempts that count; None for all.
    """

    def __init__(self, place: ArtifactFolder, code: str, only: Collection[str] | None = None) -> None:
        self._place, self._code, self._only = place, code, only
        self._files, self._base = place.files, place.base

    @cached_property
    def sidecars(self) -> dict[tuple[str, int, int], Sidecar]:
        """By table and input range; of several, the newest."""
        found = {}
        names = attempts(self._files, self._base)
        for attempt in names if self._only is None else [name for name in names if name in self._only]:
            for name in self._files.names(f"{self._base}/{attempt}"):
                sidecar = self._read(f"{self._base}/{attempt}/{name}") if _SIDECAR.match(name) else None
                if sidecar is not None and sidecar.code == self._code:
                    found[sidecar.table, sidecar.start, sidecar.stop] = sidecar
        return found

    def has(self, table: str, start: int, stop: int) -> bool:
        """There is a whole part over start..stop-1."""
        part = self.sidecars.get((table, start, stop))
        return part is not None and self.intact(part)

    def adopt(self, table: str, index: int, start: int, stop: int, attempt: str) -> Sidecar | None:
        """Give a new attempt the part over start..stop-1, if its files are what its sidecar says.

        The older attempt keeps its files, so that being killed meanwhile loses nothing.
        """
        old = self.sidecars.get((table, start, stop))
        if old is None or not self.intact(old):
            return None
        name = part_name(table, index)
        file = self._take(old.file, f"{attempt}/{name}.parquet")
        dropped = old.dropped_file and self._take(
            old.dropped_file, f"{attempt}/{part_name(DROPPED, index, table)}.parquet"
        )
        return old.model_copy(update={"index": index, "file": file, "dropped_file": dropped})

    def intact(self, part: Sidecar) -> bool:
        """The part's files are what its sidecar says."""
        try:
            self._place.check(file for file in (part.file, part.dropped_file) if file)
        except DamagedArtifact:
            return False
        return True

    def _read(self, path: str) -> Sidecar | None:
        try:
            return Sidecar.model_validate(json.loads(self._files.read(path)))
        except (FileNotFoundError, ValueError):  # another JSON file of the attempt
            return None

    def _take(self, file: StoredFile, path: str) -> StoredFile:
        self._files.link(f"{self._base}/{file.path}", f"{self._base}/{path}")
        return file.model_copy(update={"path": path})
