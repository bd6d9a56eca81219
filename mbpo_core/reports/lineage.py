"""Where every number on the page comes from: digests, seeds, versions, settings.

Times, hosts and users are left out, so that equal inputs give an equal page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mbpo_core.stage import Reader


@dataclass(frozen=True)
class Source:
    """One artifact."""

    key: str
    digest: str
    content: str
    rows: int
    dropped: int
    seed: str
    config: str
    warnings: list[str]


@dataclass(frozen=True)
class Lineage:
    """The footer."""

    sources: list[Source]
    libraries: list[tuple[str, str]]
    policies: list[tuple[str, str]]  # label, digest of those that were compared


def lineage_section(inputs: Mapping[str, Reader]) -> Lineage:
    """The footer of whatever inputs there are, in their order."""
    libraries: dict[str, str] = {}
    compared = inputs["evaluation"].manifest.policies if "evaluation" in inputs else {}
    policies = [(label, ref.digest) for label, ref in compared.items()]
    for reader in inputs.values():
        libraries |= reader.manifest.libraries
    return Lineage([_source(key, reader) for key, reader in inputs.items()], sorted(libraries.items()), policies)


def _source(key: str, reader: Reader) -> Source:
    manifest = reader.manifest
    seed = manifest.identity.get("seed")
    return Source(
        key=key,
        digest=manifest.digest,
        content=manifest.content,
        rows=manifest.rows.get("part", 0),
        dropped=sum(manifest.dropped.values()),
        seed="" if seed is None else str(seed),
        config=json.dumps(manifest.config, indent=1, sort_keys=True),
        warnings=list(manifest.warnings),
    )
