"""Are files what they were? Hashes of files in the store and outside it, remembered by time stamp."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mbpo_core.errors import DamagedArtifact, DataError, StoreError
from mbpo_core.stage import External
from mbpo_core.store.digests import digest_of
from mbpo_core.store.files import Files, file_stamp
from mbpo_core.store.manifest import StoredFile

MEMO = "cache/hashes.json"

# A file changed this recently may change again within its time stamp's grain: its hash is not remembered.
_FRESH_S = 2.0


class HashMemo:
    """sha256 of files, remembered by path and stamp.

    Args:
        place: JSON file to remember in; None forgets with the object.
    """

    def __init__(self, files: Files, place: str | None) -> None:
        self._files, self._place = files, place
        self._known: dict[str, list[Any]] | None = None
        self._new: dict[str, list[Any]] = {}

    def local(self, path: Path) -> str:
        """Hash of a local file."""
        name, stamp = os.path.abspath(path), file_stamp(path)
        known = self._recall(name, stamp)
        if known:
            return known
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if max(stamp[1:]) < (time.time() - _FRESH_S) * 1e9 and file_stamp(path) == stamp:
            self._new[name] = [*stamp, found]
        return found

    def stored(self, path: str) -> str:
        """Hash of a file of the store."""
        if self._files.local is not None:
            return self.local(self._files.local / path)
        stamp = self._files.stamp(path)
        known = self._recall(path, stamp) if stamp else None
        found = known or self._files.sha256(path)
        if stamp and not known:
            self._new[path] = [*stamp, found]
        return found

    def save(self, *, once_worth_it: bool = False) -> None:
        """Write down what was learnt since; other processes' entries are kept.

        Args:
            once_worth_it: wait until it is an eighth of what is known. A stage that reads part after part would
                otherwise write all hashes anew for each.
        """
        if not self._new or self._place is None:
            return
        if once_worth_it and len(self._new) * 8 < len(self._known or ()):
            return
        # Only a memo: a full or read-only disk is found out where it matters.
        with contextlib.suppress(StoreError, OSError), self._files.locked():
            self._known = self._load() | self._new
            self._files.write(self._place, json.dumps(self._known).encode())
            self._new = {}

    def _recall(self, path: str, stamp: list[Any]) -> str | None:
        if self._known is None:
            self._known = self._load()
        entry = self._new.get(path) or self._known.get(path)
        return str(entry[-1]) if entry and entry[:-1] == stamp else None

    def _load(self) -> dict[str, list[Any]]:
        try:
            known: dict[str, list[Any]] = json.loads(self._files.read(self._place)) if self._place else {}
        except (OSError, ValueError):  # only a memo: absent or broken, everything is hashed anew
            return {}
        return known


class ArtifactFolder:
    """An artifact's folder, whose files are checked before they are read.

    Args:
        base: the folder, relative to the tree's root.
    """

    def __init__(self, files: Files, base: str, memo: HashMemo) -> None:
        self.files, self.base, self.memo = files, base, memo
        self._checked: set[StoredFile] = set()

    def path(self, file: StoredFile) -> str:
        """A file's place in the tree."""
        return f"{self.base}/{file.path}"

    def where(self, file: StoredFile) -> str:
        """A file's place, as errors name it."""
        return f"{self.files.root}/{self.base}/{file.path}"

    def check(self, stored: Iterable[StoredFile]) -> None:
        """Compare files with what was written; each file's bytes once in this object's life.

        Page checksums alone would miss damage in a Parquet footer.

        Raises:
            DamagedArtifact: names the first file that is missing, or has other bytes.
        """
        for file in stored:
            size = self.files.size(self.path(file))
            if size is None:
                found = "the file is missing"
            elif size != file.size:
                found = f"the file has {size} bytes instead of {file.size}"
            elif file not in self._checked and self.memo.stored(self.path(file)) != file.sha256:
                found = "the file's bytes have changed"
            else:
                self._checked.add(file)
                continue
            raise DamagedArtifact(
                found,
                where=self.where(file),
                expected=f"sha256 {file.sha256[:12]}…",
                remedy="Run the stage again: what is damaged is made anew.",
            )
        self.memo.save(once_worth_it=True)

    def read(self, file: StoredFile) -> bytes:
        """A file's bytes, checked."""
        self.check([file])
        return self.files.read(self.path(file))


def listing(source: External, memo: HashMemo) -> dict[str, Any]:
    """Identity of a file or folder outside the store, by names, sizes and hashes.

    Args:
        source: file or folder, or some files of a folder; linked folders are followed, hidden names are left out.

    Returns:
        {"files": count, "bytes": total, "sha256": of the listing}; where it lies does not matter.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
    """
    path = source.path
    try:
        found = source.only() if source.only else [path] if path.is_file() else _files_below(path)
        base = path.parent if path.is_file() else path
        entries = sorted([file.relative_to(base).as_posix(), file.stat().st_size, memo.local(file)] for file in found)
    except OSError as error:
        raise DataError(
            f"cannot read the input: {error.strerror}",
            where=str(error.filename or path),
            expected="an existing file or folder",
            remedy="Check the path in the samples section.",
        ) from error
    memo.save()
    return {"files": len(entries), "bytes": sum(entry[1] for entry in entries), "sha256": digest_of(entries)}


def _files_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such file or folder", str(folder))
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return found
