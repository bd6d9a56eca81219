"""Deleting what no run needs, from a schedule."""

from __future__ import annotations

from prefect import flow

from flows.hooks import SERVICE
from flows.paths import use_store
from mbpo_core.store import Store
from mbpo_core.store.gc import collect
from tasks.notes import note_garbage


@flow(name="gc", **SERVICE)
def gc(delete: bool = False) -> list[str]:
    """Find the artifacts that no run needs.

    Args:
        delete: Delete them, too.

    Returns:
        Their places below the store's root.
    """
    found = collect(Store(use_store(None)), delete=delete)
    note_garbage(found)
    return [entry.path for entry in found]
