"""Runs: a named view of the store, from keys like "negatives" or "training/1" to artifacts."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from pydantic import Field

from mbpo_core.config import RUN_NAME
from mbpo_core.errors import DamagedArtifact, StoreError
from mbpo_core.stage import ArtifactRef
from mbpo_core.store.files import Files
from mbpo_core.store.lease import who
from mbpo_core.store.manifest import Document

_KEY = re.compile(r"^[a-z][a-z0-9_]*(/[a-z0-9][a-z0-9_-]*){0,2}$")


class Pointer(Document):
    """Which artifact a key of a run names, since when, and by whom it was set."""

    key: str
    ref: ArtifactRef
    time: str = Field(description="UTC, ISO 8601.")
    by: str


class RunDocument(Document):
    """What runs/<run>.json says."""

    run: str
    config: dict[str, Any] | None = Field(default=None, description="The run's whole config, as last run.")
    pointers: dict[str, Pointer] = Field(default_factory=dict)
    history: list[Pointer] = Field(default_factory=list, description="Every move of a pointer, oldest first.")


class Run:
    """One run's pointers; made by `Store.run`."""

    def __init__(self, files: Files, name: str) -> None:
        if not re.fullmatch(RUN_NAME, name):
            raise StoreError(
                f"{name!r} cannot be a run's name",
                expected="up to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
                remedy="Choose another name.",
            )
        self.name, self._files, self._path = name, files, f"runs/{name}.json"

    def exists(self) -> bool:
        """Something was recorded under this name."""
        return self._files.size(self._path) is not None

    def document(self) -> RunDocument:
        """Everything known of the run; empty if nothing was recorded."""
        try:
            return RunDocument.model_validate(json.loads(self._files.read(self._path)))
        except FileNotFoundError:
            return RunDocument(run=self.name)
        except ValueError as error:
            raise DamagedArtifact(
                f"the run's file is not what was written: {str(error).splitlines()[0]}",
                where=f"{self._files.root}/{self._path}",
                remedy="Delete it; running again finds the artifacts and points to them anew.",
            ) from error

    def get(self, key: str) -> ArtifactRef | None:
        """The artifact a key names now."""
        pointer = self.document().pointers.get(key)
        return pointer.ref if pointer else None

    def pointers(self) -> dict[str, ArtifactRef]:
        """Every key with the artifact it names now, in the order they were first set."""
        return {key: pointer.ref for key, pointer in self.document().pointers.items()}

    def point(self, key: str, ref: ArtifactRef) -> None:
        """Move a key to an artifact; nothing is recorded if it points there already."""
        if not _KEY.fullmatch(key):
            raise StoreError(f"{key!r} cannot be a run's key", expected='a stage, or stage/round, like "training/1"')
        pointer = Pointer(key=key, ref=ref.model_copy(update={"key": key}), time=now(), by=who())
        with self._files.locked():
            document = self.document()
            old = document.pointers.get(key)
            if old is not None and old.ref == pointer.ref:
                return
            self._save(
                document.model_copy(
                    update={
                        "pointers": document.pointers | {key: pointer},
                        "history": [*document.history, pointer],
                    }
                )
            )

    def save_config(self, config: dict[str, Any]) -> None:
        """Record the run's whole config."""
        with self._files.locked():
            self._save(self.document().model_copy(update={"config": config}))

    def _save(self, document: RunDocument) -> None:
        self._files.write(self._path, document.model_dump_json(indent=1).encode())


def now() -> str:
    """The present moment, UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
