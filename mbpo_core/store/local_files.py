"""A tree of files in a folder of this machine, or on a network file system."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpo_core.errors import StoreError
from mbpo_core.store.files import Files, check_path, copied_aside, file_stamp, naming_full_disks

_CHUNK = 2**20


class LocalFiles(Files):
    """A folder on a local or network file system."""

    def __init__(self, root: Path) -> None:
        self.local = root.expanduser().resolve()
        self.root = str(self.local)

    def _at(self, path: str) -> Path:
        assert self.local is not None
        place = self.local / check_path(path)
        if not place.resolve().is_relative_to(self.local):
            raise StoreError(f"{path!r} leads out of the store", where=self.root, remedy="Remove the symbolic link.")
        return place

    @contextlib.contextmanager
    def _aside(self, path: str) -> Iterator[tuple[Path, Path]]:
        place = self._at(path)
        aside = place.with_name(f".{place.name}.{uuid.uuid4().hex}")  # the dot keeps it out of globs
        try:
            with naming_full_disks(str(place)):
                place.parent.mkdir(parents=True, exist_ok=True)
                yield aside, place
        except PermissionError as error:
            raise StoreError(
                f"cannot write: {error.strerror}", where=str(place), remedy="Give this user the right to write there."
            ) from error
        finally:
            aside.unlink(missing_ok=True)

    def read(self, path: str) -> bytes:
        return self._at(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        with self._aside(path) as (aside, place):
            _write_through(aside, data)
            os.replace(aside, place)

    def create(self, path: str, data: bytes) -> bool:
        with self._aside(path) as (aside, place):
            _write_through(aside, data)
            try:
                os.link(aside, place)  # unlike rename, refuses to replace
            except FileExistsError:
                return False
        return True

    def upload(self, source: Path, path: str) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with self._aside(path) as (aside, place):
            with source.open("rb") as read, aside.open("wb") as write:
                while chunk := read.read(_CHUNK):
                    digest.update(chunk)
                    size += write.write(chunk)
                write.flush()
                os.fsync(write.fileno())
            os.replace(aside, place)
        return size, digest.hexdigest()

    def download(self, path: str, target: Path) -> None:
        with copied_aside(target) as aside:
            shutil.copyfile(self._at(path), aside)

    def link(self, source: str, path: str) -> None:
        with self._aside(path) as (aside, place):
            try:
                os.link(self._at(source), aside)
            except OSError:  # a file system without hard links
                shutil.copyfile(self._at(source), aside)
            os.replace(aside, place)

    def open(self, path: str) -> Any:
        return self._at(path).open("rb")

    def size(self, path: str) -> int | None:
        place = self._at(path)
        return place.stat().st_size if place.is_file() else None

    def stamp(self, path: str) -> list[Any] | None:
        return file_stamp(self._at(path))

    def names(self, path: str) -> list[str]:
        place = self._at(path)
        return sorted(n for n in os.listdir(place) if not n.startswith(".")) if place.is_dir() else []

    def walk(self, path: str) -> dict[str, int]:
        place = self._at(path)
        found = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        return {p.relative_to(self.root).as_posix(): p.stat().st_size for p in sorted(found)}

    def remove(self, path: str) -> None:
        place = self._at(path)
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    def prune(self, path: str) -> None:
        place = self._at(path)
        with contextlib.suppress(OSError):  # something is in there again
            for aside in place.glob(".*"):
                aside.unlink()
            while place != self.local:
                place.rmdir()
                place = place.parent

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        assert self.local is not None
        with naming_full_disks(self.root):
            self.local.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.local / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def scratch(self, path: str) -> Path:
        return self._at(path)


def _write_through(place: Path, data: bytes) -> None:
    with place.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
