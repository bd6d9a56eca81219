"""Dealing the parts of one artifact out to worker processes.

Each worker runs the stage's own function with a writer that hands out only its parts, and stops where the function
needs the others'. Then the parent runs the function as it always does: it finds the parts finished and adopts them, so
what comes out does not depend on how many processes made it, and a killed worker costs the part it was at.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

from mbpo_core.launching.context import stage_context
from mbpo_core.planning import StagePlan
from mbpo_core.stage import Progress, StageSpec, Workers
from mbpo_core.stages import STAGES
from mbpo_core.store.attempts import Share, ShareDone, new_attempt
from mbpo_core.store.core import Store
from mbpo_core.store.writer import ArtifactWriter

_FILE = "share.json"


def share_out(
    workers: Workers, store: Store, spec: StageSpec, plan: StagePlan, code: str, progress: Progress
) -> list[str]:
    """Let workers make every part that each can make by itself.

    Args:
        code: code digest of the stage.

    Returns:
        The attempts that hold the parts.

    Raises:
        WorkerFailed: a worker died or took too long; the parts that are finished stay for the next attempt.
        MbpoError: whatever the stage raised in a worker.
    """
    folder = store.scratch(spec.name, plan.digest, code) / "share"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    attempts = [new_attempt() for _ in range(workers.processes)]
    told = {"store": store.root, "spec": _spec_as_data(spec), "code": code, "attempts": attempts}
    told["plan"] = plan.model_dump(mode="json")
    (folder / _FILE).write_text(json.dumps(told), encoding="utf-8")
    workers.run("share", folder, progress)
    shutil.rmtree(folder, ignore_errors=True)
    return attempts


def make_share(folder: Path, rank: int, progress: Progress) -> None:
    """Make the parts of one rank; nothing is sealed or committed.

    Raises:
        MbpoError: whatever the stage raises on purpose.
    """
    told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    plan, spec, code = StagePlan.model_validate(told["plan"]), _spec_from_data(told["spec"]), told["code"]
    store = Store(told["store"], stages={**STAGES, spec.name: spec})
    writer = ArtifactWriter(
        store.folder(spec.name, plan.digest),
        spec,
        config=spec.config.model_validate(plan.request.config),
        digest=plan.digest,
        code=code,
        leftovers=None if plan.request.force else store.leftovers(spec.name, plan.digest, code),
        share=Share(rank, len(told["attempts"]), told["attempts"][rank]),
    )
    with contextlib.suppress(ShareDone):
        spec.load()(stage_context(store, spec, plan.request, writer, progress))


class Later:
    """A Progress that begins a count with its first step: what workers have done is not counted again."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begin: tuple[str, int, int] | None = None

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Keep until something is counted."""
        self._begin = description, total, done

    def advance(self, count: int = 1, **figures: float) -> None:
        """Pass on."""
        if self._begin is not None:
            self._progress.start(*self._begin)
            self._begin = None
        self._progress.advance(count, **figures)

    def log(self, message: str) -> None:
        """Pass on."""
        self._progress.log(message)


_PLAIN = ("name", "version", "entry", "inputs", "modules", "reasons", "uses_policy", "by_round", "shared")


def _spec_as_data(spec: StageSpec) -> dict[str, Any]:
    """Everything that a worker needs of a stage; what lies outside the store, the parent watches."""
    return {name: getattr(spec, name) for name in _PLAIN} | {
        "config": _name(spec.config),
        "record": _name(spec.record) if spec.record else None,
        "tables": {name: _name(record) for name, record in spec.tables.items()},
    }


def _spec_from_data(data: dict[str, Any]) -> StageSpec:
    fields = dict(data)
    fields["config"] = _found(data["config"])
    fields["record"] = _found(data["record"]) if data["record"] else None
    fields["tables"] = {name: _found(record) for name, record in data["tables"].items()}
    fields |= {name: tuple(data[name]) for name in ("inputs", "modules")}
    return StageSpec(**fields)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _found(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
