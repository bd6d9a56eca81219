"""Where a store's bytes live: a local folder, process memory, or an object store.

Paths are relative, with "/" between names. A file appears whole or not at all: it is written
aside and renamed (local), or put in one call (memory, S3).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpo_core.errors import StoreError, StoreFull

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")


def check_path(path: str) -> str:
    """The path itself, if it is relative and cannot leave the root.

    Raises:
        StoreError: a part is empty, starts with a dot, or has odd characters.
    """
    if not all(_NAME.fullmatch(name) for name in path.split("/")):
        raise StoreError(
            f"{path!r} cannot be a path inside the store",
            expected="names of letters, digits, '.', '_' and '-' with '/' between them",
            remedy="Rename the file, key or run.",
        )
    return path


@contextlib.contextmanager
def naming_full_disks(where: str) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into StoreFull; other OSErrors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreFull(
            f"no space left: {error.strerror or 'disk full'}",
            where=where,
            remedy="Free space (`mbpo gc` lists what no run needs) and run again: finished parts are kept.",
        ) from error


class Files(ABC):
    """A tree of files; see the module's docstring."""

    root: str  # absolute folder, or URL
    local: Path | None = None  # the folder, when the tree is on this machine's file systems

    @abstractmethod
    def read(self, path: str) -> bytes:
        """A whole file; FileNotFoundError if there is none."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Put a whole file, replacing an older one; StoreFull if there is no space."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Put a whole file if there is none of that name; False if there is."""

    @abstractmethod
    def upload(self, source: Path, path: str) -> tuple[int, str]:
        """Copy a local file in; returns its size in bytes and its sha256."""

    @abstractmethod
    def download(self, path: str, target: Path) -> None:
        """Copy a file out to a local path, which is replaced when the copy is whole."""

    @abstractmethod
    def link(self, source: str, path: str) -> None:
        """Let `path` have the content of `source`, without copying where possible."""

    @abstractmethod
    def open(self, path: str) -> Any:
        """A seekable reader of bytes."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Bytes of a file; None if there is none."""

    @abstractmethod
    def stamp(self, path: str) -> list[Any] | None:
        """Something that changes when the file does; None where nothing can be known."""

    @abstractmethod
    def names(self, path: str) -> list[str]:
        """Sorted names of the files and folders in a folder; empty if there is none."""

    @abstractmethod
    def walk(self, path: str) -> dict[str, int]:
        """Every file below a folder (or the file itself) with its bytes."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Delete a file or a tree; nothing happens if there is none."""

    def prune(self, path: str) -> None:  # noqa: B027 (object stores have no empty folders)
        """Delete a folder that holds nothing any more, and the empty ones above it; under `locked`."""

    @abstractmethod
    def locked(self) -> contextlib.AbstractContextManager[None]:
        """A lock over the whole tree for short read-change-write steps."""

    @abstractmethod
    def scratch(self, path: str) -> Path:
        """Where a local folder of that name beside the tree would be; it need not exist."""

    def sha256(self, path: str) -> str:
        """Hash of a file's bytes, streamed."""
        with self.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def copied_aside(target: Path) -> Iterator[Path]:
    """A path beside a local one, to write to; it takes the target's place when the block ends well."""
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with naming_full_disks(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def file_sha256(place: Path) -> str:
    """Hash of a local file's bytes, streamed."""
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(place: Path) -> list[Any]:
    """Size, and the nanoseconds of the last change of content and of the entry."""
    stat = place.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
