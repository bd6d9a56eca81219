"""A tree of files on an fsspec file system: the process's memory, or S3."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpo_core.store.files import Files, check_path, naming_full_disks


class RemoteFiles(Files):
    """A tree on an fsspec file system: process memory, or S3."""

    _lock = threading.RLock()
    _memory_scratch: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, filesystem: Any, root: str, url: str) -> None:
        self.fs, self._base, self.root = filesystem, root.rstrip("/"), url.rstrip("/")

    def _at(self, path: str) -> str:
        return f"{self._base}/{check_path(path)}"

    def read(self, path: str) -> bytes:
        data: bytes = self.fs.cat_file(self._at(path))
        return data

    def write(self, path: str, data: bytes) -> None:
        with naming_full_disks(f"{self.root}/{path}"):
            self.fs.pipe_file(self._at(path), data)

    def create(self, path: str, data: bytes) -> bool:
        with self._lock, naming_full_disks(f"{self.root}/{path}"):
            try:
                self.fs.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                return False
        return True

    def upload(self, source: Path, path: str) -> tuple[int, str]:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with naming_full_disks(f"{self.root}/{path}"):
            self.fs.put_file(str(source), self._at(path))
        return source.stat().st_size, digest

    def link(self, source: str, path: str) -> None:
        with naming_full_disks(f"{self.root}/{path}"):
            self.fs.cp_file(self._at(source), self._at(path))

    def open(self, path: str) -> Any:
        return self.fs.open(self._at(path), "rb")

    def size(self, path: str) -> int | None:
        place = self._at(path)
        self.fs.invalidate_cache(place.rpartition("/")[0])
        return int(self.fs.size(place)) if self.fs.isfile(place) else None

    def stamp(self, path: str) -> list[Any] | None:
        tag = self.fs.info(self._at(path)).get("ETag")
        return [tag] if tag else None

    def names(self, path: str) -> list[str]:
        place = self._at(path)
        self.fs.invalidate_cache(place)
        if not self.fs.isdir(place):
            return []
        return sorted({str(found).rstrip("/").rpartition("/")[2] for found in self.fs.ls(place, detail=False)})

    def walk(self, path: str) -> dict[str, int]:
        found = self.fs.find(self._at(path), detail=True)
        prefix = len(self._base.lstrip("/")) + 1
        return {name.lstrip("/")[prefix:]: int(info["size"]) for name, info in sorted(found.items())}

    def remove(self, path: str) -> None:
        if self.fs.exists(self._at(path)):
            self.fs.rm(self._at(path), recursive=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        # Between machines S3 has no lock; there `create` alone decides who wins.
        with self._lock:
            yield

    def scratch(self, path: str) -> Path:
        name = hashlib.sha256(self.root.encode()).hexdigest()[:16]
        if "memory" in self.fs.protocol:  # gone with the process, like the store itself
            RemoteFiles._memory_scratch = RemoteFiles._memory_scratch or tempfile.TemporaryDirectory(prefix="mbpo-")
            base = Path(RemoteFiles._memory_scratch.name)
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbpo"
        return base / name / check_path(path)
