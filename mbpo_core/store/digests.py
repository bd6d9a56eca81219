"""Digests: of canonical JSON, rows, content and source code."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROW_BYTES = 32


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, and floats that read back exactly."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_bytes_as_hash)


def digest_of(value: Any) -> str:
    """sha256 of canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def bytes_digest(data: bytes) -> str:
    """sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def row_digests(rows: Iterable[Mapping[str, Any]], leave_out: frozenset[str] = frozenset()) -> bytes:
    """32 bytes a row, in order: exact floats; image bytes enter by their hash.

    Args:
        rows: rows as `tables.check_rows` returns them.
        leave_out: volatile columns.
    """
    digests = bytearray()
    for row in rows:
        kept = {name: value for name, value in row.items() if name not in leave_out}
        digests += hashlib.sha256(canonical(kept).encode()).digest()
    return bytes(digests)


def pack(digests: bytes) -> str:
    """Row digests as a sidecar keeps them."""
    return base64.b64encode(digests).decode()


def content_digest(tables: Mapping[str, Sequence[str]], files: Mapping[str, str]) -> str:
    """What came out, whatever the part size: tables' rows in order, then files by path.

    Args:
        tables: packed row digests of each table's parts, in order.
        files: path to sha256.
    """
    total = hashlib.sha256()
    for name in sorted(tables):
        rows = sum(_unpacked_bytes(packed) for packed in tables[name]) // ROW_BYTES
        total.update(f"table {name} {rows}\n".encode())
        for packed in tables[name]:
            total.update(base64.b64decode(packed))
    for path in sorted(files):
        total.update(f"file {path} {files[path]}\n".encode())
    return total.hexdigest()


def _unpacked_bytes(packed: str) -> int:
    return len(packed) // 4 * 3 - packed[-2:].count("=")


def code_digest(modules: Sequence[str]) -> str:
    """sha256 of the Python source of modules and packages, without importing them.

    A module that cannot be found counts as absent.
    """
    total = hashlib.sha256()
    for module in sorted(modules):
        for name, path in _sources(module):
            total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _sources(module: str) -> list[tuple[str, Path]]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders and spec.origin:
        return [(module, Path(spec.origin))]
    return sorted(
        (f"{module}/{path.relative_to(folder).as_posix()}", path) for folder in folders for path in folder.rglob("*.py")
    )


def _bytes_as_hash(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")
