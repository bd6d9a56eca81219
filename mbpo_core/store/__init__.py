"""The artifact store, which is also the cache: see docs/architecture.md."""

from mbpo_core.store.core import Store
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.migrations import migration
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.store.runs import Run

__all__ = ["ArtifactReader", "Manifest", "Run", "Store", "migration"]
