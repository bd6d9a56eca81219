"""Stages that take no time: each writes down what it was given. What flows do with them is real."""

from __future__ import annotations

import dataclasses

import pytest

from mbpo_core.errors import WorkerFailed
from mbpo_core.records import Sample
from mbpo_core.stage import StageContext
from mbpo_core.stages import STAGES
from tests.execution.fakes import sample


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the function and the tables of every stage, and nothing else of it."""
    for name, spec in list(STAGES.items()):
        fake = dataclasses.replace(spec, entry=f"{__name__}:run", record=None, tables={}, reasons={})
        monkeypatch.setitem(STAGES, name, fake)


def run(context: StageContext) -> None:
    """Content follows from what was read and from the settings, as a real stage's does."""
    given = {
        "config": context.config.identity(),
        "inputs": {name: reader.ref.content for name, reader in context.inputs.items()},
        "policies": {name: ref.digest for name, ref in context.policies.items()},
    }
    context.output.add_json("given.json", given)
    if "reference" in context.policies:
        folder = context.output.scratch() / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.txt").write_text(str(given), encoding="utf-8")
        context.output.add_folder("checkpoint", folder)
    if context.config.__class__.__name__ == "ReportConfig":
        context.output.add_text("report.html", "<html></html>")


FAIL_AT: list[int] = []
"""Parts that `run_in_parts` fails at, each once."""

COMPUTED: list[int] = []
"""Rows that `run_in_parts` made, in the order they were made."""


def install_parts(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Let a stage write two parts of rows, and fail when `FAIL_AT` says so."""
    fake = dataclasses.replace(STAGES[stage], entry=f"{__name__}:run_in_parts", record=Sample)
    monkeypatch.setitem(STAGES, stage, fake)
    monkeypatch.setattr(f"{__name__}.COMPUTED", [])
    monkeypatch.setattr(f"{__name__}.FAIL_AT", [])


def run_in_parts(context: StageContext) -> None:
    """Eight rows, four a part; in pairs they depend on the share that is kept."""
    shade = round(100 * getattr(context.config, "share", 0))
    context.progress.start("drawing", 8)
    for part in context.output.parts(8, 4):
        if part.index in FAIL_AT:
            FAIL_AT.remove(part.index)
            log = "\n".join(f"log line {number}" for number in range(80))
            raise WorkerFailed("rank 0 ended with exit code 1", remedy=f"The last lines of its log:\n{log}")
        part.finish([sample(index, shade) for index in range(part.start, part.stop)])
        COMPUTED.extend(range(part.start, part.stop))
        context.progress.advance(part.stop - part.start)
