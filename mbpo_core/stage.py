"""What a stage is: the contract between the store, which calls stages, and the stages.

A stage's `run(context)` reads `context.inputs`, computes, and hands rows to `context.output`.
It never names a path, a digest or another stage. `mbpo_core.stages` lists all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from mbpo_core.config import Section
from mbpo_core.records import Dropped, Record

Row = dict[str, Any]

BASE = "base"
"""Label of the policy that nothing has been trained on."""


class ArtifactRef(BaseModel):
    """Names one committed artifact; a plain JSON object when it crosses Prefect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str = ""  # the run pointer it serves: "negatives", "training/1", "training/sft"
    digest: str  # identity: what went in
    content: str  # content digest: what came out
    uri: str  # folder of the artifact inside its store


class PolicyRef(BaseModel):
    """Names a model: an external folder, or the checkpoint of a training artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = ""  # an external model folder; empty for a checkpoint of the store
    artifact: ArtifactRef | None = None
    digest: str  # of weights, processor and chat template
    label: str = BASE


class Reader(Protocol):
    """A committed artifact; opens only what its manifest names."""

    ref: ArtifactRef
    manifest: Any  # mbpo_core.store.manifest.Manifest: parts, dropped counts by reason, config, seconds

    def count(self, table: str = "part") -> int:
        """Rows of one of the artifact's tables."""

    def slice(self, start: int, stop: int, table: str = "part", columns: Sequence[str] | None = None) -> list[Row]:
        """Rows start..stop-1 as plain dicts, reading only the row groups they lie in."""

    def rows(self, table: str = "part", columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows in order, streamed."""

    def where(self, column: str, values: Sequence[Any]) -> Reader:
        """A view of the rows of the main table whose column is one of values; same interface."""

    def share(self, index: int, of: int) -> Reader:
        """A view of every `of`-th row, from row `index` on; same interface."""

    def folder(self, name: str) -> Path:
        """A local copy (or the place itself) of a committed folder, e.g. "checkpoint"."""

    def json(self, name: str) -> dict[str, Any]:
        """A committed JSON file, e.g. "summary.json"."""


class PartWriter(Protocol):
    """One unfinished part of an artifact: the rows computed from inputs start..stop-1."""

    index: int
    start: int
    stop: int

    def finish(self, rows: Sequence[Row], dropped: Sequence[Dropped] = ()) -> None:
        """Write the part's rows and dead letters, and mark it done."""


class Writer(Protocol):
    """Where a stage puts what it makes; nothing is visible before the artifact is committed."""

    def parts(self, total: int, part_rows: int, batch: int = 1, *, table: str = "part") -> Iterator[PartWriter]:
        """The unfinished parts over `total` inputs; part_rows is rounded up to whole batches.

        Batches are cut at multiples of `batch` of the global input index, so part size and
        resuming never change which rows are computed together.
        """

    def finished(self, table: str = "part") -> list[range]:
        """The inputs that an earlier attempt, or this one, is done with; of all shares. Asked after `parts`."""

    def reader(self, table: str) -> Reader:
        """Read back a table of this same attempt whose parts are all finished."""

    def scratch(self) -> Path:
        """A local folder that outlives a killed attempt (resumable training state)."""

    def cache(self, name: str) -> Path:
        """A local folder that other artifacts of this stage and code share, for what can be computed again."""

    def add_folder(self, name: str, source: Path, *, content: bool = True) -> None:
        """Publish a local folder's files under `name/`.

        With content=False they stay out of the content digest: resumable state with time stamps.
        """

    def add_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Publish a JSON file."""

    def add_text(self, name: str, value: str, *, content: bool = True) -> None:
        """Publish a UTF-8 text file; with content=False it stays out of the content digest, as in `add_folder`."""


class Progress(Protocol):
    """Told how far a stage is; shows a bar with time left, or writes log lines."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a count of `total`, of which an earlier attempt has done so many: they say nothing about the speed."""

    def advance(self, count: int = 1, **figures: float) -> None: ...

    def log(self, message: str) -> None: ...


class Workers(Protocol):
    """Processes of their own, on leased accelerators where there are any."""

    processes: int

    def run(self, task: str, folder: Path, progress: Progress) -> None:
        """Do a task of `mbpo_core.worker` in every process and wait for the last one.

        Args:
            task: "train" or "share".
            folder: what the processes are told, as plain files; they log, report progress and errors there.
            progress: told what they tell.

        Raises:
            WorkerFailed: a process died, or took too long; carries the last log lines of rank 0.
            MbpoError: whatever error of ours the work raised, as if it had been raised here.
        """


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may know."""

    config: Any  # the stage's own section of the config
    inputs: Mapping[str, Reader]
    policies: Mapping[str, PolicyRef]  # by input name: "policy", "reference", ...
    policy_config: Any  # PolicyConfig: dtype, attention, device
    output: Writer
    progress: Progress
    seed: int
    round_index: int = 0
    rounds: int = 1
    goes_on_from: Reader | None = None  # what `StageSpec.shorter` led to: the same work without its last step
    name: str = ""  # <run>/<key>, for what people watch; no part of any identity
    open_policy: Callable[[PolicyRef], Path] = field(default=lambda ref: Path(ref.folder))  # local model folder
    workers: Workers | None = None  # of a stage that starts processes itself; None computes in this one

    def begin(
        self, description: str, total: int, part_rows: int, batch: int = 1, *, table: str = "part"
    ) -> list[PartWriter]:
        """The parts that are left to do (see `Writer.parts`), with a count begun over all inputs."""
        parts = list(self.output.parts(total, part_rows, batch, table=table))
        self.progress.start(description, total, sum(map(len, self.output.finished(table))))
        return parts


@dataclass(frozen=True)
class External:
    """A file or folder outside the store that a stage reads; its listing enters the identity."""

    path: Path
    only: Callable[[], Sequence[Path]] | None = None  # the files of the folder that count; None counts all


@dataclass(frozen=True)
class StageSpec:
    """One line of the table in `mbpo_core.stages`."""

    name: str
    version: int  # bumped when the stage's logic changes what comes out
    config: type[Section]
    entry: str  # "package.module:function", imported only when the stage runs
    record: type[Record] | None  # rows of the main table; None for stages that write files only
    inputs: tuple[str, ...] = ()
    tables: Mapping[str, type[Record]] = field(default_factory=dict)  # further tables
    modules: tuple[str, ...] = ()  # packages whose source makes up the code digest
    reasons: Mapping[str, Literal["bad", "filtered"]] = field(default_factory=dict)  # closed set of dropped rows
    uses_policy: bool = False  # dtype and attention enter the identity
    by_round: bool = False  # round_index and rounds enter the identity
    shared: bool = False  # each part stands alone, so that several processes may make them
    external: Callable[[Any], Mapping[str, External]] = field(default=lambda config: {})  # by config field
    shorter: Callable[[Any], Section | None] = field(default=lambda config: None)  # settings without a cheap last step

    def load(self) -> Callable[[StageContext], None]:
        """Import the stage's function."""
        module, _, function = self.entry.partition(":")
        run: Callable[[StageContext], None] = getattr(importlib.import_module(module), function)
        return run
