"""Writing small inputs and importing them through a real store."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mbpo_core.config import SamplesConfig
from mbpo_core.execution import execute, plan
from mbpo_core.progress import NullProgress
from mbpo_core.records import Record
from mbpo_core.stage import ArtifactRef, StageContext
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader


def picture(color: tuple[int, ...] = (200, 30, 30), size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Image.Image:
    """A plain picture with one odd pixel in its upper left corner, so that turning it shows."""
    image = Image.new(mode, size, color)
    image.putpixel((0, 0), tuple(255 - value for value in color))
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def write_lines(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def import_samples(store: Path, *, seed: int = 0, **settings: Any) -> ArtifactReader:
    """Run the stage and open what it committed; any share of rows may be dropped unless settings say otherwise."""
    config = SamplesConfig(**{"max_dropped_share": 1.0, **settings})
    opened_store = Store(store)
    ref = execute(opened_store, plan(opened_store, STAGES["samples"], config, {}, seed=seed), NullProgress())
    return opened_store.reader(ref)


def dropped(reader: ArtifactReader) -> dict[str, str]:
    """Reason of each dropped row by its id."""
    return {row["sample_id"]: row["reason"] for row in reader.rows("dropped")}


_GIVEN: list[dict[str, Any]] = []


def commit_rows(store: Store, stage: str, rows: Sequence[Record], *, seed: int = 0) -> ArtifactRef:
    """Put hand-made rows into the store as if the stage had made them; another seed makes another artifact."""
    _GIVEN[:] = [row.model_dump() for row in rows]
    spec = dataclasses.replace(STAGES[stage], entry=f"{__name__}:write_given", inputs=(), uses_policy=False)
    return execute(store, plan(store, spec, spec.config(), {}, seed=seed, force=True), NullProgress(), spec=spec)


def write_given(context: StageContext) -> None:
    """A stage that writes the rows of `commit_rows`."""
    for part in context.output.parts(len(_GIVEN), 10):
        part.finish(_GIVEN[part.start : part.stop])
