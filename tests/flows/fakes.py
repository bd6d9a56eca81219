"""Stages that take no time: each writes down what it was given. What flows do with them is real."""

from __future__ import annotations

import dataclasses

import pytest

from mbpo_core.stage import StageContext
from mbpo_core.stages import STAGES


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
