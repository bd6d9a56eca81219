"""Which tree of files a store's root names."""

from __future__ import annotations

import os
from pathlib import Path

from mbpo_core.errors import StoreError
from mbpo_core.store.files import Files
from mbpo_core.store.local_files import LocalFiles
from mbpo_core.store.remote_files import RemoteFiles

PROTOCOLS = ("file", "local", "memory", "s3")

# Other processes write too, so no listing is remembered; and a reader of one row group need not fetch 50 MiB ahead.
# Endpoint and credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...) or the machine's role.
_S3 = {"use_listings_cache": False, "default_block_size": 8 * 2**20}


def open_files(root: str | os.PathLike[str]) -> Files:
    """The tree at a path or fsspec URL; nothing is created yet.

    Raises:
        StoreError: the protocol is not supported, its package is not installed, or the root holds more than a name.
    """
    text = os.fspath(root)
    protocol, separator, rest = text.partition("://")
    if not separator:
        return LocalFiles(Path(text))
    if protocol not in PROTOCOLS:
        raise StoreError(
            f"a store cannot live on {protocol}://",
            where=text,
            expected="a local path, file://, memory:// or s3://",
            remedy="Choose one of these roots.",
        )
    if protocol in ("file", "local"):
        return LocalFiles(Path(rest))
    if "@" in rest or "?" in rest:
        raise StoreError(
            "a store's root holds no credentials and no options",
            where=f"{protocol}://…",
            expected=f"{protocol}://bucket/folder",
            remedy="Give credentials in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    import fsspec

    try:
        filesystem, base = fsspec.core.url_to_fs(text, **(_S3 if protocol == "s3" else {}))
    except ImportError as error:
        raise StoreError(f"{protocol}:// needs a package: {error}", where=text, remedy="Install s3fs.") from error
    if not base.strip("/"):
        raise StoreError("the store's root has no name", where=text, remedy=f"Write {protocol}://some-name.")
    return RemoteFiles(filesystem, base, text)
