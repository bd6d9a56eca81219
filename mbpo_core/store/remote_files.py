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

from mbpo_core.errors import StoreError
from mbpo_core.store.conditional import ConditionalWrites
from mbpo_core.store.files import Files, check_path, copied_aside, naming_full_disks
from mbpo_core.store.remote_lock import RemoteLock


class RemoteFiles(Files):
    """A tree on an fsspec file system: process memory, or S3."""

    _lock = threading.RLock()
    _memory_scratch: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, filesystem: Any, root: str, url: str) -> None:
        self.fs, self._base, self.root = filesystem, root.rstrip("/"), url.rstrip("/")
        self._writes = None if "memory" in filesystem.protocol else ConditionalWrites(filesystem, self.root)

    def _at(self, path: str) -> str:
        return f"{self._base}/{check_path(path)}"

    def read(self, path: str) -> bytes:
        with self._naming_trouble(path):
            data: bytes = self.fs.cat_file(self._at(path))
            return data

    def write(self, path: str, data: bytes) -> None:
        with self._writing(path):
            self.fs.pipe_file(self._at(path), data)

    def create(self, path: str, data: bytes) -> bool:
        with self._writing(path):
            if self._writes is not None:
                return self._writes.create(self._at(path), data)
            with self._lock:
                try:
                    self.fs.pipe_file(self._at(path), data, mode="create")
                except FileExistsError:
                    return False
                return True

    def upload(self, source: Path, path: str) -> tuple[int, str]:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._writing(path):
            self.fs.put_file(str(source), self._at(path))
        return source.stat().st_size, digest

    def download(self, path: str, target: Path) -> None:
        with self._naming_trouble(path), copied_aside(target) as aside:
            self.fs.get_file(self._at(path), str(aside))

    def link(self, source: str, path: str) -> None:
        with self._writing(path):
            self.fs.cp_file(self._at(source), self._at(path))

    def open(self, path: str) -> Any:
        with self._naming_trouble(path):
            return self.fs.open(self._at(path), "rb")

    def size(self, path: str) -> int | None:
        info = self._info(path)
        return int(info["size"]) if info and info["type"] == "file" else None

    def stamp(self, path: str) -> list[Any] | None:
        tag = (self._info(path) or {}).get("ETag")
        return [tag] if tag else None

    def names(self, path: str) -> list[str]:
        place = self._at(path)
        with self._naming_trouble(path):
            try:
                found = [str(name).strip("/") for name in self.fs.ls(place, detail=False)]
            except FileNotFoundError:
                return []
        return sorted({name.rpartition("/")[2] for name in found if name != place.strip("/")})

    def walk(self, path: str) -> dict[str, int]:
        with self._naming_trouble(path):
            found = self.fs.find(self._at(path), detail=True)
        prefix = len(self._base.lstrip("/")) + 1
        return {name.lstrip("/")[prefix:]: int(info["size"]) for name, info in sorted(found.items())}

    def remove(self, path: str) -> None:
        with self._naming_trouble(path), contextlib.suppress(FileNotFoundError):
            self.fs.rm(self._at(path), recursive=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:  # keeps the threads of this process apart
            if self._writes is None:
                yield
                return
            lock = RemoteLock(self.fs, self._writes, self._at("lock"))
            with self._writing("lock"):
                lock.take()
            try:
                yield
            finally:
                with self._naming_trouble("lock"):
                    lock.give_back()

    def scratch(self, path: str) -> Path:
        name = hashlib.sha256(self.root.encode()).hexdigest()[:16]
        if self._writes is None:  # gone with the process, like the store itself
            RemoteFiles._memory_scratch = RemoteFiles._memory_scratch or tempfile.TemporaryDirectory(prefix="mbpo-")
            base = Path(RemoteFiles._memory_scratch.name)
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbpo"
        return base / name / check_path(path)

    def _info(self, path: str) -> dict[str, Any] | None:
        with self._naming_trouble(path):
            try:
                found: dict[str, Any] = self.fs.info(self._at(path))
            except FileNotFoundError:
                return None
        return found

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        with self._naming_trouble(path), naming_full_disks(f"{self.root}/{path}"):
            try:
                yield
            except FileNotFoundError as error:
                raise StoreError(
                    f"cannot write: {error}",
                    where=f"{self.root}/{path}",
                    remedy="Create the bucket, or check its name.",
                ) from error

    @contextlib.contextmanager
    def _naming_trouble(self, path: str) -> Iterator[None]:
        """Turn what S3 and the way there may answer into a StoreError; absence passes."""
        try:
            yield
        except PermissionError as error:
            raise StoreError(
                f"S3 refuses: {error}",
                where=f"{self.root}/{path}",
                remedy="Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what the bucket allows them.",
            ) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("botocore", "aiobotocore", "aiohttp"):
                raise
            raise StoreError(
                f"S3 does not answer: {error}",
                where=f"{self.root}/{path}",
                remedy="Check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, the credentials and the network.",
            ) from error
