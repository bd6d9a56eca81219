"""Giving away what a run made: `mbpo export`."""

from __future__ import annotations

from pathlib import Path

from flows import console
from mbpo_core.errors import StoreError
from mbpo_core.exporting.dataset import export_tables
from mbpo_core.exporting.model import export_checkpoint
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.search import Found, find_some


def export(store: Store, what: str, run: str, folder: Path, *, dropped: bool, overwrite: bool) -> None:
    """Write an artifact's tables, or a training artifact's checkpoint, as a folder with a card.

    Raises:
        StoreError: the word means no artifact or several, or one that holds nothing to export.
        ConfigError: the folder is taken.
    """
    ref = _one(store, find_some(store, what, run), what)
    if ref.stage == "training":
        export_checkpoint(store, ref, run, folder, overwrite=overwrite)
        console.say(f"Wrote the checkpoint of {ref.key} with its card to {folder}; from_pretrained loads it.")
        return
    tables = export_tables(store, ref, folder, dropped=dropped, overwrite=overwrite)
    console.say(f"Wrote {', '.join(tables)} with a card to {folder}; datasets.load_dataset opens it.")


def _one(store: Store, found: list[Found], what: str) -> ArtifactRef:
    if len({entry.digest for entry in found}) > 1:
        raise StoreError(
            f"{what} means several artifacts",
            where=store.root,
            expected=f"one of {', '.join(entry.key for entry in found)}",
            remedy="Name one of them.",
        )
    key, stage, digest = found[0]
    return ArtifactRef(stage=stage, key=key, digest=digest, content="", uri=store.uri(stage, digest))
