"""The stage `samples`: the demo's scenes or anybody's rows in, checked samples out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

from mbpo_core.config import SamplesConfig
from mbpo_core.records import Dropped, Sample
from mbpo_core.samples.benchmarks import is_benchmark, open_benchmark, own_columns
from mbpo_core.samples.columns import RawReader, columns_to_read
from mbpo_core.samples.normalise import STAGE, Normaliser
from mbpo_core.samples.paths import image_root
from mbpo_core.samples.readers import open_reader
from mbpo_core.stage import Row, StageContext


def run(context: StageContext) -> None:
    """Import part by part; a row that cannot be used is dropped with its reason.

    Raises:
        DataError: the input is missing or empty, or lacks a mapped column; before any row is read.
    """
    config: SamplesConfig = context.config
    if config.source == "demo":
        _demo(context, config)
        return
    reader: RawReader = open_benchmark(config) if is_benchmark(config) else open_reader(config)
    root = image_root(config)
    total = min(reader.count, config.limit or reader.count)
    with closing(_SeenIds()) as seen:
        mapping = own_columns(config) if is_benchmark(config) else config
        _import(context, mapping, reader, Normaliser(mapping, root), seen, total)


def _import(
    context: StageContext, config: SamplesConfig, reader: RawReader, normaliser: Normaliser, seen: _SeenIds, total: int
) -> None:
    columns = columns_to_read(config, reader.columns)
    rows, position, looked_at, left_out = reader.rows(columns), 0, 0, 0
    for part in context.begin(STAGE, total, config.part_rows):
        for raw in islice(rows, part.start - position):  # parts that an earlier attempt finished
            seen.add(normaliser.sample_id(raw))
        samples: list[Row] = []
        dropped: list[Dropped] = []
        for raw in islice(rows, part.stop - part.start):
            result = normaliser.normalise(raw)
            if not seen.add(result.sample_id):
                detail = f"an earlier row has the id {result.sample_id!r}"
                dropped.append(normaliser.drop(result.sample_id, raw, "duplicate_id", detail))
            elif isinstance(result, Dropped):
                dropped.append(result)
            else:
                samples.append(result.model_dump())
        position = part.stop
        part.finish(samples, dropped)
        looked_at, left_out = looked_at + part.stop - part.start, left_out + len(dropped)
        context.progress.advance(part.stop - part.start, dropped=left_out / looked_at)


class _SeenIds:
    """The ids met so far, in a temporary file of SQLite's own, so that memory does not grow with the rows.

    The first row with an id keeps it, even if that row is dropped for another reason.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, sample_id: str) -> bool:
        """Remember an id; False if it was there."""
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (sample_id,)).rowcount == 1

    def close(self) -> None:
        self._database.close()


def _demo(context: StageContext, config: SamplesConfig) -> None:
    """The procedural scenes; see `mbpo_core.demo.pools` for what they ask."""
    from mbpo_core.demo.pools import DemoCounts, demo_samples
    from mbpo_core.demo.probes import probe_names

    counts = DemoCounts(
        offline=config.demo_offline,
        online=config.demo_online,
        eval_probe=config.demo_eval,
        eval_small_probe=_small(config.demo_eval),
        dev_probe=config.demo_dev,
        dev_small_probe=_small(config.demo_dev),
        conflict_share=config.demo_conflict_share,
    )
    probes = [is_large for _, is_large in probe_names()]
    large, small = sum(probes), len(probes) - sum(probes)
    total = counts.offline + counts.online
    total += large * (counts.eval_probe + counts.dev_probe) + small * (counts.eval_small_probe + counts.dev_small_probe)
    total = min(total, config.limit or total)
    samples: Iterator[Sample] = iter(demo_samples(config.demo_setting, context.seed, counts))
    position = 0
    for part in context.begin(STAGE, total, config.part_rows):
        rows = [sample.model_dump() for sample in islice(samples, part.start - position, part.stop - position)]
        position = part.stop
        part.finish(rows)
        context.progress.advance(len(rows))


def _small(count: int) -> int:
    """Questions of a small probe (count, position, ...) where a large one has `count`: two fifths."""
    return round(0.4 * count)
