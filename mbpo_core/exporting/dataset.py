"""The tables of an artifact as a data set folder: Parquet files and a card that tells `datasets` which is which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mbpo_core.errors import StoreError
from mbpo_core.exporting.folder import CARD, export_folder
from mbpo_core.exporting.told import dropped_table, libraries_line, lineage_table, settings_table
from mbpo_core.markdown import escaped, table
from mbpo_core.records import Dropped, Record
from mbpo_core.stage import ArtifactRef, StageSpec
from mbpo_core.store import Store
from mbpo_core.store.manifest import DROPPED, MAIN, Manifest
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.tables import columns_of, encode, to_table

_COUNTED = ("split", "kind", "question_kind", "negative_kind", "answer_form", "policy", "probe", "zero_variance")
_SAID = {
    "samples": "Questions about pictures with their reference answers.",
    "negatives": "Reference answers beside rejected responses, with the pictures that provoked them.",
    "pairs": "Preference pairs about pictures: a chosen and a rejected response to the same prompt.",
    "rollouts": "Groups of sampled completions with log-probabilities, verdicts and rewards.",
    "training": "Training metrics, a row an optimizer step.",
    "evaluation": "Answers of several policies to held-out questions, with verdicts.",
}


def export_tables(
    store: Store, ref: ArtifactRef, folder: Path, *, dropped: bool = False, overwrite: bool = False
) -> list[str]:
    """Write the tables of an artifact so that `datasets.load_dataset(folder, TABLE)` opens them.

    Equal artifacts give equal bytes. Rows stream: memory holds one part.

    Args:
        folder: to make, or to replace.
        dropped: also write the rows that were kept aside, with their source rows.
        overwrite: replace an earlier export.

    Returns:
        The names of the tables, the main one (the stage's name) first.

    Raises:
        StoreError: the artifact has no tables, or is damaged.
        ConfigError: the folder is taken.
    """
    reader = store.reader(ref)
    manifest, spec = reader.manifest, store.stages.get(ref.stage)
    records = _records(manifest, spec, dropped=dropped)
    if not records:
        raise StoreError(
            f"the {ref.key or ref.stage} artifact has no table to export",
            where=f"{ref.stage} {ref.digest[:12]}",
            remedy="Name another artifact; mbpo show lists those of a run.",
        )
    with export_folder(folder, manifest, overwrite=overwrite) as fresh:
        for name, (stored, record) in records.items():
            _write(reader, stored, record, fresh / name)
        (fresh / CARD).write_text(_card(store, ref, reader, records), encoding="utf-8")
    return list(records)


def _records(manifest: Manifest, spec: StageSpec | None, *, dropped: bool) -> dict[str, tuple[str, type[Record]]]:
    """Exported name -> (table of the artifact, record)."""
    found: dict[str, tuple[str, type[Record]]] = {}
    if spec is not None:
        own = {MAIN: spec.record, **spec.tables}
        for stored, record in own.items():
            if record is not None and stored in manifest.tables:
                found[spec.name if stored == MAIN else stored] = (stored, record)
    if found and dropped and manifest.dropped:
        found[DROPPED] = (DROPPED, Dropped)
    return found


def _write(reader: ArtifactReader, stored: str, record: type[Record], folder: Path) -> None:
    """One file a part of the artifact; a table without rows is one file that has its columns."""
    counts = [
        part.dropped_rows if stored == DROPPED else part.rows
        for part in reader.manifest.parts
        if stored in (DROPPED, part.table)
    ]
    counts = [count for count in counts if count] or [0]
    folder.mkdir()
    start = 0
    for number, count in enumerate(counts):
        rows = reader.slice(start, start + count, stored)
        name = f"train-{number:05d}-of-{len(counts):05d}.parquet"
        (folder / name).write_bytes(encode(to_table(rows, record)))
        start += count


def _card(store: Store, ref: ArtifactRef, reader: ArtifactReader, records: dict[str, tuple[str, type[Record]]]) -> str:
    from huggingface_hub import DatasetCardData

    manifest, main = reader.manifest, next(iter(records))
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": "train", "path": f"{name}/*.parquet"}],
            **({"default": True} if name == main else {}),
        }
        for name in records
    ]
    front = DatasetCardData(
        pretty_name=f"mbpo {ref.key or ref.stage}",
        task_categories=["visual-question-answering"],
        tags=["mbpo", ref.stage],
        configs=configs,
    )
    rows = {name: reader.count(stored) for name, (stored, _) in records.items()}
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {escaped(ref.key or ref.stage)}",
        f"{_SAID[ref.stage]} Written by mbpo {ref.stage} and exported with mbpo export.",
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("<this folder>", "{main}", split="train")\n```',
        "## Rows",
        table(["table", "rows"], [[[name], [f"{count:,}"]] for name, count in rows.items()]),
        *_counts(reader, records[main][1]),
        "## Dropped",
        f"Of {manifest.total:,} input rows of the stage, these were kept aside"
        + ("." if DROPPED in records else " and are not part of this folder."),
        dropped_table(manifest),
        *_columns(records),
        "## Settings",
        settings_table(manifest),
        "## Lineage",
        "What it was made from; digests name artifacts of the store it comes from.",
        lineage_table(store, ref),
        f"Libraries: {escaped(libraries_line(manifest))}. Device: {escaped(manifest.device)}.",
        "## Licence",
        "Not stated. Pictures, questions and answers come from the input named above, and model outputs from the model "
        "named above; their terms apply. Add a `license` to the head of this file once they are settled.",
    ]
    return "\n\n".join(parts) + "\n"


def _counts(reader: ArtifactReader, record: type[Record]) -> list[str]:
    columns = [name for name in _COUNTED if name in record.model_fields]
    counted: dict[str, Counter[Any]] = {name: Counter() for name in columns}
    for row in reader.rows(columns=columns) if columns else ():
        for name in columns:
            counted[name][row[name]] += 1
    lines = [
        [[name], [", ".join(f"{value} {count:,}" for value, count in sorted(counts.items(), key=str))]]
        for name, counts in counted.items()
        if counts
    ]
    return [table(["column", "rows by value"], lines)] if lines else []


def _columns(records: dict[str, tuple[str, type[Record]]]) -> list[str]:
    """A section a record; tables of the same record share it."""
    parts: list[str] = []
    for record in dict.fromkeys(record for _, record in records.values()):
        names = [name for name, (_, own) in records.items() if own is record]
        types = columns_of(record)
        rows = [[[name], [types[name]], [field.description or ""]] for name, field in record.model_fields.items()]
        parts += [f"## Columns of {escaped(' and '.join(names))}", table(["column", "type", "meaning"], rows)]
    return parts
