"""Are files what they were? Files of the store are compared with its manifests, and those outside it are listed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mbpo_core.errors import DamagedArtifact, DataError
from mbpo_core.stage import External
from mbpo_core.store.digests import canonical
from mbpo_core.store.files import Files
from mbpo_core.store.manifest import StoredFile
from mbpo_core.store.memo import MEMO, HashMemo

__all__ = ["MEMO", "ArtifactFolder", "HashMemo", "listing"]


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
        {"files": count, "bytes": total, "sha256": of the canonical JSON of all [name, bytes, sha256] by name}; where
        it lies does not matter.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
    """
    path = source.path
    base = path.parent if path.is_file() else path
    count = size = 0
    total = hashlib.sha256(b"[")
    try:
        found = source.only() if source.only else [path] if path.is_file() else _files_below(path)
        # Of each file only its name is kept, to be sorted.
        for number, name in enumerate(sorted(file.relative_to(base).as_posix() for file in found)):
            file = base / name
            bytes_ = file.stat().st_size
            total.update((("," if number else "") + canonical([name, bytes_, memo.local(file)])).encode())
            count, size = count + 1, size + bytes_
    except OSError as error:
        raise DataError(
            f"cannot read the input: {error.strerror}",
            where=str(error.filename or path),
            expected="an existing file or folder",
            remedy="Check the path in the samples section.",
        ) from error
    memo.save()
    total.update(b"]")
    return {"files": count, "bytes": size, "sha256": total.hexdigest()}


def _files_below(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such file or folder", str(folder))
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in files if not name.startswith("."))
