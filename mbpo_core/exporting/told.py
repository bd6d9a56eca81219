"""What a card says of where something comes from. Names and values are escaped; paths, people and machines stay out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from mbpo_core.markdown import table
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import readable_manifest, trace
from mbpo_core.store.manifest import Manifest

_PATH = re.compile(r"^([/~\\]|[A-Za-z]:[\\/]|\.\.?[\\/])")
_DIGITS = 12  # of a digest


def public(value: Any) -> Any:
    """A setting's value for others to read: of a path its last name, of a URL neither credentials nor query."""
    if isinstance(value, Mapping):
        return {name: public(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if "://" in value:
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.hostname or ''}{'' if parts.scheme == 'file' else parts.path}"
    return PurePath(value.replace("\\", "/")).name if _PATH.match(value) else value


def model_name(manifest: Manifest) -> str:
    """The model that a stage was configured with: a demo's or hub's name, or the last name of its folder."""
    return str(public((manifest.policy_config or {}).get("model", "")))


def hub_model(manifest: Manifest) -> str:
    """The same where the model was taken from the hub's cache, else empty."""
    name = str((manifest.policy_config or {}).get("model", ""))
    cached = f"models--{name.replace('/', '--')}"
    folders = [PurePath(policy.folder).parts for policy in manifest.policies.values() if policy.folder]
    return name if any(cached in parts for parts in folders) else ""


def settings_table(manifest: Manifest) -> str:
    """Every setting that decided what came out, the model's and the seed included."""
    identity = manifest.identity
    settings = {f"{manifest.stage}.{name}": value for name, value in identity.get("config", {}).items()}
    if manifest.policy_config:
        settings["policy.model"] = model_name(manifest)
    settings |= {f"policy.{name}": value for name, value in identity.get("model", {}).items()}
    settings |= identity.get("round", {})
    settings["seed"] = identity.get("seed")
    return table(["setting", "value"], [[[name], [public(value)]] for name, value in settings.items()])


def lineage_table(store: Store, ref: ArtifactRef) -> str:
    """The artifact, what it was made from, and what those were made from, down to the input's hashes."""
    rows: list[list[list[object]]] = []
    for step in trace(store, ref, once=True):
        if step.again:
            continue
        manifest = readable_manifest(store, step.ref.stage, step.ref.digest)
        rows.append(
            [
                [step.ref.key or step.ref.stage],
                [f"{step.ref.stage} {step.ref.digest[:_DIGITS]}"],
                [f"{count:,} {'rows' if name == 'part' else name}" for name, count in manifest.rows.items()]
                if manifest
                else ["deleted since"],
                _outside(manifest) if manifest else [],
            ]
        )
    return table(["made", "artifact", "holds", "read from outside"], rows)


def dropped_table(manifest: Manifest) -> str:
    """Rows that were kept aside, by reason; a sentence where there are none."""
    if not manifest.dropped:
        return "No row was dropped."
    counts = sorted(manifest.dropped.items(), key=lambda entry: (-entry[1], entry[0]))
    return table(["reason", "rows"], [[[reason], [count]] for reason, count in counts])


def libraries_line(manifest: Manifest) -> str:
    """ "datasets 5.0, torch 2.13.0"."""
    return ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items()))


def _outside(manifest: Manifest) -> list[object]:
    """Input files and models by their digests."""
    files = [
        f"{name}: {listed['files']:,} files, {listed['bytes']:,} bytes, sha256 {listed['sha256'][:_DIGITS]}"
        for name, listed in manifest.identity.get("external", {}).items()
        if listed["files"]
    ]
    models = [
        f"model {model_name(manifest)}: {policy.digest[:_DIGITS]}"
        for policy in manifest.policies.values()
        if policy.folder
    ]
    return [*files, *dict.fromkeys(models)]
