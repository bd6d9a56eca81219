"""What an artifact's JSON files say: the manifest, and the sidecar of each finished part."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mbpo_core.stage import ArtifactRef, PolicyRef

DROPPED = "dropped"  # the table of dead letters, which every stage has
MAIN = "part"


class Document(BaseModel):
    """Base of the store's JSON documents; a field of a newer release is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StoredFile(Document):
    """A file of the artifact and what it must be."""

    path: str = Field(description="Relative to the artifact's folder.")
    size: int = Field(description="Bytes.")
    sha256: str
    content: bool = Field(default=True, description="Counts in the content digest.")


class TableInfo(Document):
    """The schema a table was written with."""

    record: str
    version: int
    columns: dict[str, str] = Field(description="Column name to Arrow type.")


class PartInfo(Document):
    """One finished part: the rows made from inputs start..stop-1. Also its sidecar."""

    table: str
    index: int
    start: int
    stop: int
    rows: int
    file: StoredFile
    dropped_rows: int = 0
    dropped_file: StoredFile | None = None
    reasons: dict[str, int] = Field(default_factory=dict, description="Dropped rows by reason.")
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Sidecar(PartInfo):
    """A part that is done, with what a later attempt needs to adopt it."""

    code: str = Field(description="Code digest of the stage that made it.")
    row_digests: str = Field(description="Base64 of 32 bytes a kept row, in order.")
    dropped_digests: str = Field(description="The same of the dropped rows.")
    examples: dict[str, list[str]] = Field(description="A few dropped rows by reason, for messages.")


class Manifest(Document):
    """Everything about a committed artifact; its existence is the commit."""

    format: int = 1
    stage: str
    key: str = Field(description="The run pointer it was first made for.")
    digest: str
    content: str
    identity: dict[str, Any] = Field(description="What went in; its hash is the digest.")
    code: str = Field(description="Digest of the source of the stage's modules; recorded, not identity.")
    inputs: dict[str, ArtifactRef]
    policies: dict[str, PolicyRef]
    tables: dict[str, TableInfo]
    attempt: str
    parts: list[PartInfo]
    files: list[StoredFile]
    rows: dict[str, int] = Field(description="Rows of each table.")
    total: int = Field(description="Input rows of the first table, dropped ones included.")
    dropped: dict[str, int] = Field(description="Dropped rows by reason.")
    config: dict[str, Any] = Field(description="The stage's whole section, knobs included.")
    policy_config: dict[str, Any] | None = None
    libraries: dict[str, str]
    device: str
    seconds: float = Field(description="Wall-clock, with parts adopted from older attempts and what it goes on from.")
    cpu_seconds: float
    accelerator_seconds: float = Field(description="seconds times processes on an accelerator; 0 on a CPU.")
    created: str = Field(description="UTC, ISO 8601.")
    by: str = Field(description="user@host pid.")
    warnings: list[str] = Field(default_factory=list)

    def ref(self, uri: str, key: str = "") -> ArtifactRef:
        """The reference that names this artifact."""
        return ArtifactRef(stage=self.stage, key=key or self.key, digest=self.digest, content=self.content, uri=uri)

    def stored_files(self) -> list[StoredFile]:
        """Every file the artifact consists of."""
        tables = [file for part in self.parts for file in (part.file, part.dropped_file) if file]
        return tables + self.files
