"""The store: where artifacts lie, and who may see and write them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from mbpo_core.errors import DamagedArtifact, ModelError, StoreError
from mbpo_core.stage import ArtifactRef, PolicyRef, StageSpec
from mbpo_core.stages import STAGES
from mbpo_core.store.attempts import Leftovers, attempts
from mbpo_core.store.checks import MEMO, ArtifactFolder, HashMemo
from mbpo_core.store.lease import EXPIRY_S, HEARTBEAT_S, Lease
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.store.roots import open_files
from mbpo_core.store.runs import Run
from mbpo_core.store.writer import scratch_path, table_records


class Store:
    """Artifacts and runs below one root.

    Args:
        root: a path, or memory:// or s3:// URL; made on the first write.
        stages: the stages whose tables can be migrated when read.
        lease_expiry_s: a lease ends this long after its last heartbeat.
        heartbeat_s: how often a lease is renewed.

    Raises:
        StoreError: the root's protocol is not supported.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        stages: Mapping[str, StageSpec] = STAGES,
        lease_expiry_s: float = EXPIRY_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.files = open_files(root)
        self.stages = stages
        self.memo = HashMemo(self.files, MEMO)
        self._lease_expiry_s, self._heartbeat_s = lease_expiry_s, heartbeat_s

    @property
    def root(self) -> str:
        """Absolute folder, or URL."""
        return self.files.root

    def base(self, stage: str, digest: str) -> str:
        """An artifact's folder, relative to the root."""
        return f"artifacts/{stage}/{digest[:2]}/{digest}"

    def folder(self, stage: str, digest: str) -> ArtifactFolder:
        """An artifact's folder, for checked access to its files."""
        return ArtifactFolder(self.files, self.base(stage, digest), self.memo)

    def uri(self, stage: str, digest: str) -> str:
        """An artifact's folder, absolute."""
        return f"{self.root}/{self.base(stage, digest)}"

    def is_committed(self, stage: str, digest: str) -> bool:
        """The artifact has a manifest; its files are not looked at."""
        return self.files.size(f"{self.base(stage, digest)}/manifest.json") is not None

    def manifest(self, stage: str, digest: str) -> Manifest | None:
        """An artifact's manifest; None if it is not committed.

        Raises:
            DamagedArtifact: the manifest is not what was written.
        """
        path = f"{self.base(stage, digest)}/manifest.json"
        try:
            return Manifest.model_validate(json.loads(self.files.read(path)))
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError) as error:
            raise DamagedArtifact(
                f"the manifest is not what was written: {str(error).splitlines()[0]}",
                where=f"{self.root}/{path}",
                remedy="Run the stage again: the artifact is made anew.",
            ) from error

    def check(self, stage: str, digest: str) -> Manifest | None:
        """The manifest, after comparing every file of the artifact with it; None if not committed.

        Raises:
            DamagedArtifact: names what is missing or changed.
        """
        manifest = self.manifest(stage, digest)
        if manifest is not None:
            self.folder(stage, digest).check(manifest.stored_files())
        return manifest

    def reader(self, ref: ArtifactRef, spec: StageSpec | None = None) -> ArtifactReader:
        """Open a committed artifact.

        Raises:
            StoreError: the store has no such artifact.
            DamagedArtifact: its manifest is broken.
        """
        manifest = self.manifest(ref.stage, ref.digest)
        if manifest is None:
            raise StoreError(
                f"there is no committed {ref.key or ref.stage} artifact {ref.digest[:12]}",
                where=self.uri(ref.stage, ref.digest),
                remedy="Run the stage, or give the root of the store it was made in.",
            )
        spec = spec or self.stages.get(ref.stage)
        records = table_records(spec) if spec else {}
        return ArtifactReader(self.folder(ref.stage, ref.digest), manifest, ref, records)

    def open_policy(self, ref: PolicyRef) -> Path:
        """A local folder that a model loads from: an external one, or a training artifact's checkpoint.

        Raises:
            ModelError: the external folder does not exist.
            StoreError, DamagedArtifact: the artifact has no intact checkpoint.
        """
        if ref.artifact is not None:
            return self.reader(ref.artifact).folder("checkpoint")
        if not Path(ref.folder).is_dir():
            raise ModelError("there is no model folder", where=ref.folder, remedy="Check policy.model.")
        return Path(ref.folder)

    def lease(self, stage: str, digest: str) -> Lease:
        """The right to write an artifact, to be entered; LeaseHeld if another live worker has it."""
        path = f"{self.base(stage, digest)}/lease.json"
        return Lease(self.files, path, expiry_s=self._lease_expiry_s, heartbeat_s=self._heartbeat_s)

    def commit(self, manifest: Manifest, lease: Lease) -> None:
        """Make an attempt visible, and clear away what the artifact no longer needs.

        An older manifest (forced rerun, or damage) is replaced; its attempt stays until gc,
        because a reader may have it open.

        Raises:
            LeaseHeld: another worker took the lease over meanwhile; nothing is changed.
        """
        base, data = self.base(manifest.stage, manifest.digest), manifest.model_dump_json(indent=1).encode()
        path = f"{base}/manifest.json"
        with self.files.locked():
            lease.check()
            keep = {manifest.attempt}
            if not self.files.create(path, data):
                keep |= self._attempt_of(manifest)
                self.files.write(path, data)
        for attempt in attempts(self.files, base):
            if attempt not in keep:
                self.files.remove(f"{base}/{attempt}")
        self.clear_scratch(manifest.stage, manifest.digest, manifest.code)

    def clear_scratch(self, stage: str, digest: str, code: str) -> None:
        """Forget the resumable state of a stage."""
        shutil.rmtree(self.scratch(stage, digest, code), ignore_errors=True)

    def leftovers(self, stage: str, digest: str, code: str) -> Leftovers:
        """Finished parts of ended attempts at an artifact, made by the same code."""
        return Leftovers(self.folder(stage, digest), code)

    def scratch(self, stage: str, digest: str, code: str) -> Path:
        """Where a stage's resumable state would lie; it need not exist."""
        return self.files.scratch(scratch_path(stage, digest, code))

    def artifacts(self) -> list[tuple[str, str]]:
        """(stage, digest) of every artifact folder, committed or not."""
        return [
            (stage, digest)
            for stage in self.files.names("artifacts")
            for prefix in self.files.names(f"artifacts/{stage}")
            for digest in self.files.names(f"artifacts/{stage}/{prefix}")
        ]

    def run(self, name: str) -> Run:
        """The pointers of a run, which need not exist yet."""
        return Run(self.files, name)

    def runs(self) -> list[str]:
        """Names of the runs recorded here."""
        return [name.removesuffix(".json") for name in self.files.names("runs") if name.endswith(".json")]

    def _attempt_of(self, manifest: Manifest) -> set[str]:
        try:
            old = self.manifest(manifest.stage, manifest.digest)
        except DamagedArtifact:
            return set()
        return {old.attempt} if old else set()
