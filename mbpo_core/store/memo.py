"""Hashes of files, remembered by time stamp: 56 bytes a file, because inputs may name a million pictures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mbpo_core.errors import StoreError
from mbpo_core.store.files import Files, file_stamp

MEMO = "cache/hashes.bin"

# A file changed this recently may change again within its time stamp's grain: its hash is not remembered.
_FRESH_S = 2.0

_KEY, _STAMP, _HASH, _CHECK = 16, 8, 32, 16  # bytes
_FOLD = 4096  # entries that are kept in a dict, at most (or a quarter of what is known), before they join the table


class HashMemo:
    """sha256 of files, remembered by path and stamp.

    Args:
        place: file to remember in; None forgets with the object.
    """

    def __init__(self, files: Files, place: str | None) -> None:
        self._files, self._place = files, place
        self._known: _Table | None = None
        self._new: dict[bytes, bytes] = {}
        self._unsaved = 0

    def local(self, path: Path) -> str:
        """Hash of a local file."""
        name, stamp = os.path.abspath(path), file_stamp(path)
        known = self._recall(name, stamp)
        if known:
            return known
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if max(stamp[1:]) < (time.time() - _FRESH_S) * 1e9 and file_stamp(path) == stamp:
            self._remember(name, stamp, found)
        return found

    def stored(self, path: str) -> str:
        """Hash of a file of the store."""
        if self._files.local is not None:
            return self.local(self._files.local / path)
        stamp = self._files.stamp(path)
        known = self._recall(path, stamp) if stamp else None
        found = known or self._files.sha256(path)
        if stamp and not known:
            self._remember(path, stamp, found)
        return found

    def save(self, *, once_worth_it: bool = False) -> None:
        """Write down what was learnt since; other processes' entries are kept.

        Args:
            once_worth_it: wait until it is an eighth of what is known. A stage that reads part after part would
                otherwise write all hashes anew for each.
        """
        if not self._unsaved or self._place is None:
            return
        known = self._table()
        if once_worth_it and self._unsaved * 8 < len(known):
            return
        # Only a memo: a full or read-only disk is found out where it matters.
        with contextlib.suppress(StoreError, OSError), self._files.locked():
            self._known = self._load().joined(known).joined(_Table.of(self._new))
            self._files.write(self._place, self._known.packed())
            self._new, self._unsaved = {}, 0

    def _remember(self, path: str, stamp: list[Any], found: str) -> None:
        self._new[_digest(path, _KEY)] = _digest(stamp, _STAMP) + bytes.fromhex(found)
        self._unsaved += 1
        if len(self._new) > max(_FOLD, len(self._table()) // 4):
            self._known, self._new = self._table().joined(_Table.of(self._new)), {}

    def _recall(self, path: str, stamp: list[Any]) -> str | None:
        key = _digest(path, _KEY)
        entry = self._new.get(key) or self._table().find(key)
        return entry[_STAMP:].hex() if entry and entry[:_STAMP] == _digest(stamp, _STAMP) else None

    def _table(self) -> _Table:
        if self._known is None:
            self._known = self._load()
        return self._known

    def _load(self) -> _Table:
        try:
            return _Table.unpacked(self._files.read(self._place)) if self._place else _Table.of({})
        except (OSError, ValueError):  # only a memo: absent or broken, everything is hashed anew
            return _Table.of({})


@dataclass(frozen=True)
class _Table:
    """Entries in two arrays, by rising key."""

    keys: npt.NDArray[np.bytes_]  # digests of paths
    values: npt.NDArray[np.void]  # digest of the stamp, then the file's hash

    @classmethod
    def of(cls, entries: Mapping[bytes, bytes]) -> _Table:
        keys = sorted(entries)
        return cls._from(b"".join(keys), b"".join(entries[key] for key in keys))

    @classmethod
    def unpacked(cls, data: bytes) -> _Table:
        """Raises ValueError if the bytes are not what `packed` made."""
        entries = memoryview(data)[_CHECK:]
        count, rest = divmod(len(entries), _KEY + _STAMP + _HASH)
        if rest or hashlib.blake2b(entries, digest_size=_CHECK).digest() != data[:_CHECK]:
            raise ValueError("the memo is damaged")
        return cls._from(entries[: count * _KEY], entries[count * _KEY :])

    @classmethod
    def _from(cls, keys: Any, values: Any) -> _Table:
        return cls(np.frombuffer(keys, dtype=f"S{_KEY}"), np.frombuffer(values, dtype=f"V{_STAMP + _HASH}"))

    def __len__(self) -> int:
        return len(self.keys)

    def packed(self) -> bytes:
        entries = self.keys.tobytes() + self.values.tobytes()
        return hashlib.blake2b(entries, digest_size=_CHECK).digest() + entries

    def find(self, key: bytes) -> bytes | None:
        place = int(np.searchsorted(self.keys, np.bytes_(key)))
        # As bytes: numpy takes zeros at the end of a single value away, and one key in 256 ends in zero.
        found = self.keys[place : place + 1].tobytes() == key
        return self.values[place].tobytes() if found else None

    def joined(self, other: _Table) -> _Table:
        """All entries of both; the other's where both have one."""
        keys, first = np.unique(np.concatenate([other.keys, self.keys]), return_index=True)
        return _Table(keys, np.concatenate([other.values, self.values])[first])


def _digest(value: Any, size: int) -> bytes:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=size).digest()
