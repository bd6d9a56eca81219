"""The folder of an export: new, or in place of an earlier export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbpo_core import __version__
from mbpo_core.errors import ConfigError
from mbpo_core.folders import fresh_folder, refuse_foreign
from mbpo_core.store.manifest import Manifest

MARK = "mbpo.json"
CARD = "README.md"


@contextmanager
def export_folder(folder: Path, manifest: Manifest, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill; it stands in its place, with a file that says which artifact it is of, once it is whole.

    Raises:
        ConfigError: there is something, and it is no earlier export or `overwrite` is off.
    """
    refuse_foreign(folder, MARK)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(
            "the output folder holds an earlier export",
            where=str(folder),
            expected="a new or empty folder",
            remedy="Name another one with --output, or give --overwrite to replace it.",
        )
    with fresh_folder(folder) as fresh:
        yield fresh
        origin: dict[str, Any] = {name: getattr(manifest, name) for name in ("stage", "key", "digest", "content")}
        text = json.dumps({"mbpo": __version__, **origin, "rows": manifest.rows}, indent=1)
        (fresh / MARK).write_text(text + "\n", encoding="utf-8")
