"""Datasets of the Hugging Face hub: their files, in the local cache, are read like any other folder.

The files themselves are taken (`snapshot_download`) rather than what `load_dataset` makes of them, so that rows stream,
nothing is converted on disk, and what an import was made from is told by the hashes of the published files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(:(?P<inside>[^:]+))?")


@dataclass(frozen=True)
class HubName:
    """`owner/name`, `owner/name@revision`, and after a colon a file or folder of it."""

    repo: str
    revision: str | None = None
    inside: str = ""


def parse_hub_name(config: SamplesConfig) -> HubName | None:
    """The dataset that samples.path names, if it has the form of a hub name.

    A file's name is none, so that a mistyped path is not asked for: of a dataset a file is named behind the colon.
    """
    found = _NAME.fullmatch(config.path)
    if not found or config.path.startswith((".", "/", "~")):
        return None
    if not found["inside"] and (config.source == "jsonl" or found["repo"].endswith((".parquet", ".json", ".jsonl"))):
        return None
    return HubName(found["repo"], found["revision"], (found["inside"] or "").strip("/"))


def hub_copy(name: HubName, *, allow_download: bool) -> Path:
    """The local copy of a dataset, or of a part of it.

    Raises:
        DataError: it is not in the local cache and may not be, or cannot be, downloaded; it has no such part.
    """
    from huggingface_hub import snapshot_download

    only = [name.inside, f"{name.inside}/*"] if name.inside else None
    try:
        folder = snapshot_download(
            name.repo,
            repo_type="dataset",
            revision=name.revision,
            allow_patterns=only,
            local_files_only=not allow_download,
        )
    except Exception as error:  # the client raises many unrelated classes; all mean the same here
        raise DataError(
            f"{name.repo!r} is neither a file or folder nor in the local hub cache",
            where="samples.path",
            expected="an existing path, or a dataset of the hub as owner/name, owner/name@revision or owner/name:file",
            remedy=f"Check the name, the network and your access ({type(error).__name__})."
            if allow_download
            else "Download it first, or set samples.allow_download: true.",
        ) from error
    copy = Path(folder, name.inside)
    if not copy.exists():
        raise DataError(
            f"the dataset {name.repo!r} has no {name.inside!r}",
            where="samples.path",
            remedy="Check the name behind the colon; a copy in the cache may be of other parts.",
        )
    return copy


@cache
def hub_repository(folder: Path) -> Path | None:
    """The cache's folder with everything of a dataset, of a folder that is a snapshot of it; else None."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and (place.parent.parent / "blobs").is_dir():
            return place.parent.parent
    return None
