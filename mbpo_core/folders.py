"""Folders of files that people open: written whole, or not at all, and never over somebody else's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbpo_core.errors import ConfigError


def refuse_foreign(folder: Path, mark: str) -> None:
    """A folder that is to be replaced must hold an earlier one of ours or nothing.

    Args:
        mark: the file that every one of ours has.

    Raises:
        ConfigError: it holds something else.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / mark).exists() or not any(folder.iterdir()))):
        raise ConfigError(
            "the output folder holds something else, which would be deleted",
            where=str(folder),
            expected=f"a new or empty folder, or one with an earlier {mark}",
            remedy="Name another one with --output.",
        )


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the other's place once the block has ended without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """Put the new folder where the old one was; whoever looks sees one of them whole."""
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
