"""Where every number on the page comes from, and what it cost: digests, seeds, versions, settings, seconds.

Dates, hosts and users are left out, so that a page made again of the same artifacts is the same page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

from mbpo_core.stage import Reader

_SETTINGS = 50_000  # characters of a stage's settings that are shown


@dataclass(frozen=True)
class Source:
    """One artifact; `made_from` are the keys of what it read. Costs are seconds."""

    key: str
    digest: str
    content: str
    rows: int
    dropped: int
    seed: str
    made_from: list[str]
    device: str
    seconds: float
    cpu_seconds: float
    accelerator_seconds: float
    config: Markup
    warnings: list[str]


@dataclass(frozen=True)
class Lineage:
    """The footer."""

    sources: list[Source]
    total: tuple[float, float, float]  # seconds, of a CPU, of accelerators
    libraries: list[tuple[str, str]]
    policies: list[tuple[str, str]]  # label, digest of those that were compared


def lineage_section(inputs: Mapping[str, Reader]) -> Lineage:
    """The footer of whatever inputs there are, in their order."""
    libraries: dict[str, str] = {}
    compared = inputs["evaluation"].manifest.policies if "evaluation" in inputs else {}
    policies = [(label, ref.digest) for label, ref in compared.items()]
    for reader in inputs.values():
        libraries |= reader.manifest.libraries
    sources = [_source(key, reader) for key, reader in inputs.items()]
    columns = zip(*((one.seconds, one.cpu_seconds, one.accelerator_seconds) for one in sources), strict=True)
    seconds, cpu, accelerator = map(sum, columns) if sources else (0.0, 0.0, 0.0)
    return Lineage(sources, (seconds, cpu, accelerator), sorted(libraries.items()), policies)


def _source(key: str, reader: Reader) -> Source:
    manifest = reader.manifest
    seed = manifest.identity.get("seed")
    checkpoints = (policy.artifact for policy in manifest.policies.values())
    read = [*manifest.inputs.values(), *(ref for ref in checkpoints if ref is not None)]
    return Source(
        key=key,
        digest=manifest.digest,
        content=manifest.content,
        rows=manifest.rows.get("part", 0),
        dropped=sum(manifest.dropped.values()),
        seed="" if seed is None else str(seed),
        made_from=list(dict.fromkeys(ref.key or ref.stage for ref in read)),
        device=manifest.device,
        seconds=manifest.seconds,
        cpu_seconds=manifest.cpu_seconds,
        accelerator_seconds=manifest.accelerator_seconds,
        config=escape(json.dumps(manifest.config, indent=1, sort_keys=True)[:_SETTINGS]),
        warnings=list(manifest.warnings),
    )
