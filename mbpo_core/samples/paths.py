"""Where image paths may lead: into the declared image root and nowhere else."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpo_core.config import SamplesConfig
from mbpo_core.errors import DataError
from mbpo_core.samples.hub import hub_copy, hub_repository, parse_hub_name
from mbpo_core.samples.problems import Unusable

_REMOTE = ("http:", "https:", "ftp:", "s3:", "gs:", "hf:", "data:", "file:")


def input_path(config: SamplesConfig) -> Path:
    """The configured file or folder; of a dataset on the hub, its local copy.

    Raises:
        DataError: it does not exist, or a file stands where the source needs a folder (or the other way round); a
            dataset of the hub is not in the local cache and may not be downloaded.
    """
    path = Path(config.path)
    if not path.exists() and (hub := parse_hub_name(config)):
        path = hub_copy(hub, allow_download=config.allow_download)
    if not path.exists():
        raise DataError(
            f"{config.path!r} does not exist",
            where="samples.path",
            expected=f"the {'folder' if config.source == 'dataset' else 'file'} to import from",
            remedy="Correct samples.path; relative paths start at the working directory.",
        )
    if config.source == "dataset" and not path.is_dir():
        raise DataError(
            f"{config.path!r} is a file",
            where="samples.path",
            expected="a dataset folder",
            remedy="Set samples.source to jsonl or parquet for a single file.",
        )
    if config.source == "jsonl" and path.is_dir():
        raise DataError(
            f"{config.path!r} is a folder",
            where="samples.path",
            expected="a JSON Lines file",
            remedy="Name the file, or set samples.source to dataset.",
        )
    return path


def image_root(config: SamplesConfig) -> Path:
    """The folder that image paths are relative to and may not leave, with symbolic links resolved.

    Raises:
        DataError: the declared folder does not exist.
    """
    if config.image_root:
        root = Path(config.image_root)
        if not root.is_dir():
            raise DataError(
                f"{config.image_root!r} is not a folder",
                where="samples.image_root",
                remedy="Name the folder that the image paths are relative to.",
            )
        return root.resolve()
    path = input_path(config)
    return (path if path.is_dir() else path.parent).resolve()


def resolve_image(root: Path, text: str) -> Path:
    """The file that an image path names.

    Args:
        root: as `image_root` returns it.
        text: relative to root, or absolute.

    Raises:
        Unusable: image_outside_root where the path (symbolic links resolved) leaves root;
            unreadable_image where it is a URL or names no regular file.
    """
    if text.lower().startswith(_REMOTE):
        raise Unusable("unreadable_image", f"{text[:80]!r} is a URL; set samples.url_folder to have https fetched")
    try:
        # os.path rather than pathlib: this runs once a row.
        named = os.path.join(root, text)
        path, fence = os.path.realpath(named), root
        if repository := hub_repository(root):
            # The files of a snapshot are links into its repository's other folder; what counts is the name.
            named = os.path.normpath(named)
            fence = repository if _inside(named, root) else root
        inside = _inside(path, fence)
        regular = inside and os.path.isfile(path)
    except (OSError, ValueError) as error:  # NUL byte, name too long
        raise Unusable("unreadable_image", f"{text[:80]!r} is no usable path: {error}") from error
    if not inside:
        raise Unusable("image_outside_root", f"{text[:200]!r} leads out of the image root; set samples.image_root")
    if not regular:
        raise Unusable("unreadable_image", f"no file {text[:200]!r} under the image root")
    return Path(named if repository else path)


def _inside(path: str, folder: Path) -> bool:
    return path.startswith(os.path.join(folder, ""))


def is_missing(value: Any) -> bool:
    """None, NaN, an empty text or an empty list."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str | bytes | list | tuple | dict) and len(value) == 0)


def image_values(value: Any) -> list[Any]:
    """The images of one cell: itself, or the items of a list."""
    return [item for item in value if not is_missing(item)] if isinstance(value, list | tuple) else [value]


def named_paths(value: Any) -> Iterator[str]:
    """The paths in an image cell, whether or not bytes come with them."""
    for item in image_values(value):
        path = item.get("path") if isinstance(item, dict) else item
        if isinstance(path, str) and path:
            yield path
