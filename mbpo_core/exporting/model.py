"""A checkpoint as a model folder that `from_pretrained` loads, with its card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbpo_core.evaluation.summary import Summary, in_order
from mbpo_core.evaluation.table import caption, format_entry, shown_metrics
from mbpo_core.exporting.folder import CARD, export_folder
from mbpo_core.exporting.told import (
    dropped_table,
    hub_model,
    libraries_line,
    lineage_table,
    model_name,
    settings_table,
)
from mbpo_core.markdown import escaped, table
from mbpo_core.methods import METHODS
from mbpo_core.stage import BASE, ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import readable_manifest
from mbpo_core.store.manifest import Manifest


def export_checkpoint(store: Store, ref: ArtifactRef, run: str, folder: Path, *, overwrite: bool = False) -> None:
    """Write a training artifact's checkpoint and its card.

    Args:
        ref: of a training artifact.
        run: whose method and evaluation the card tells.
        folder: to make, or to replace.
        overwrite: replace an earlier export.

    Raises:
        StoreError: the artifact has no intact checkpoint.
        ConfigError: the folder is taken.
    """
    reader = store.reader(ref)
    checkpoint = reader.folder("checkpoint")
    with export_folder(folder, reader.manifest, overwrite=overwrite) as fresh:
        shutil.copytree(checkpoint, fresh, dirs_exist_ok=True)
        (fresh / CARD).write_text(_card(store, ref, run, reader.manifest), encoding="utf-8")


def _card(store: Store, ref: ArtifactRef, run: str, manifest: Manifest) -> str:
    from huggingface_hub import ModelCardData

    config = store.run(run).document().config or {}
    method = str(config.get("method", ""))
    base = hub_model(manifest)
    front = ModelCardData(
        base_model=base or None,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["mbpo", *([method] if method in METHODS else [])],
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {escaped(ref.key or ref.stage)} of {escaped(run)}",
        f"{escaped(model_name(manifest) or 'A model')}, trained by mbpo. Below: how and on what, and what was "
        "measured of it.",
        "## Base and method",
        _method(method, manifest),
        "## Evaluation",
        *_evaluation(store, ref, run),
        "## Training settings",
        settings_table(manifest),
        "## Data",
        "What it was trained on, and what that was made from; digests name artifacts of the store it comes from.",
        lineage_table(store, ref),
        *_dropped(store, manifest),
        f"Libraries: {escaped(libraries_line(manifest))}. Device: {escaped(manifest.device)}.",
        "## Limits",
        _LIMITS,
        "## Licence",
        "Not stated. The terms of the base model and of the data apply. Add a `license` to the head of this file once "
        "they are settled.",
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """\
- The evaluation says what these questions say: held-out pictures of the same data, closed-ended questions for the most
  part. Nothing was measured about other data, languages or long answers unless the table has it.
- An interval is about the sampling of questions for one trained model, not about training again with another seed.
- No safety, bias or privacy evaluation was made. What the base model does wrong, this one may do, too."""


def _method(method: str, manifest: Manifest) -> str:
    entry = METHODS.get(method)
    settings: Mapping[str, Any] = manifest.config
    facts: list[tuple[str, object]] = [
        ("base model", model_name(manifest) or "not recorded"),
        ("base digest", ", ".join(sorted({p.digest[:12] for p in manifest.policies.values() if p.folder})) or "–"),
        ("method", f"{method}: {entry.line}" if entry else "not recorded"),
        ("source", entry.source if entry else "–"),
        ("optimizer steps in this artifact", sum(manifest.rows.values())),
        ("loss on pairs", settings.get("objective", "–")),
    ]
    return table(["", ""], [[[name], [value]] for name, value in facts])


def _evaluation(store: Store, ref: ArtifactRef, run: str) -> list[str]:
    """The table of an evaluation of the run that asked this checkpoint, if there is one."""
    for pointer in store.run(run).pointers().values():
        manifest = readable_manifest(store, pointer.stage, pointer.digest) if pointer.stage == "evaluation" else None
        asked = manifest.policies if manifest else {}
        label = next((name for name, p in asked.items() if p.artifact and p.artifact.digest == ref.digest), "")
        if label:
            summary = in_order(store.reader(pointer).json("summary.json"))
            return [
                f"{escaped(label)} is this checkpoint, {BASE} the model it started from.",
                *_results(summary, label),
            ]
    return ["This checkpoint has not been evaluated in its run."]


def _results(summary: Summary, label: str) -> list[str]:
    """Headline metrics of base and checkpoint with their difference, and what the brackets are."""
    columns = [summary["policies"].get(BASE, {}), summary["policies"][label]]
    rows: list[list[list[object]]] = []
    for name in shown_metrics(summary, full=False):
        described = summary["metrics"][name]
        cells: list[object] = [format_entry(entries.get(name), described["unit"]) for entries in columns]
        cells.append(format_entry(summary["differences"].get(label, {}).get(name), described["unit"], signed=True))
        rows.append([[described["label"]], *([cell] for cell in cells)])
    return [table(["metric", BASE, label, "difference"], rows), escaped(caption(summary))]


def _dropped(store: Store, manifest: Manifest) -> list[str]:
    """Dropped rows of the tables that were trained on."""
    parts: list[str] = []
    for name, ref in manifest.inputs.items():
        read = readable_manifest(store, ref.stage, ref.digest)
        if read is not None and read.dropped:
            parts += [f"Dropped from {escaped(ref.key or name)}:", dropped_table(read)]
    return parts
