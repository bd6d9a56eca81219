"""Curves to watch while training runs: TensorBoard and Weights & Biases, both off by default.

Their metrics are the columns of `TrainingStep`, by name; docs/metrics.md says what each means. Two small writers of our
own, because DeepSpeed's monitor also writes figures of its own under other names, counts samples instead of steps,
and after a resume writes the steps since the checkpoint twice.

A resumed round has all its rows in its checkpoint, so it writes them again in place of what earlier attempts wrote, and
each step shows once, whenever they were killed. Nothing here enters an artifact: folders and project are settings
marked *how*.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import ConfigError
from mbpo_core.records import TrainingStep

ROOT_VARIABLE = "MBPO_MONITORS"
"""Names the folder that curves are written below; whoever starts a run may name folders in it and no others."""

_STEP = "step"  # the axis, not a curve


class Monitors(BaseModel):
    """Where one round's curves go; an empty folder stands for nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""  # <run>/<key>, such as demo/training/0
    tensorboard: str = ""
    wandb: str = ""
    wandb_project: str = ""
    wandb_mode: str = "offline"


class Curves(Protocol):
    """One kind of file that rows of metrics are written to."""

    def write(self, row: TrainingStep) -> None:
        """Add one step."""

    def close(self) -> None:
        """Write what is still held back."""


def monitors_of(config: TrainingConfig, name: str = "") -> Monitors:
    """The monitors that the settings ask for, with whole paths; nothing is made yet.

    Args:
        config: the training section.
        name: <run>/<key> of the round.

    Raises:
        ConfigError: a folder lies outside the one that holds all curves, or a package is not installed.
    """
    monitors = Monitors(
        name=name,
        tensorboard=_inside("tensorboard", config.tensorboard),
        wandb=_inside("wandb", config.wandb),
        wandb_project=config.wandb_project,
        wandb_mode=config.wandb_mode,
    )
    require_packages(monitors)
    return monitors


def require_packages(monitors: Monitors) -> None:
    """Refuse a monitor whose package is missing; looks at what is installed and imports nothing.

    Raises:
        ConfigError: says which extra to install.
    """
    for package, folder in (("tensorboard", monitors.tensorboard), ("wandb", monitors.wandb)):
        try:
            if folder:
                version(package)
        except PackageNotFoundError:
            raise ConfigError(
                f"the package {package} is not installed",
                where=f"training.{package} is {folder!r}",
                expected=f"mbpo with its extra {package}",
                remedy=f"pip install 'mbpo[{package}]', or leave training.{package} empty.",
            ) from None


@contextmanager
def watching(
    monitors: Monitors,
    rows: Sequence[TrainingStep] = (),
    *,
    work: str = "",
    settings: Mapping[str, Any] | None = None,
    first: bool = True,
) -> Iterator[Watch]:
    """Open the monitors and write the steps that are behind us; close them at the end, whatever ends it.

    Args:
        monitors: where curves go.
        rows: steps of this round that were made before, in order; empty unless it is resumed.
        work: identity of the work (Job.fingerprint); attempts at the same work are one run of Weights & Biases.
        settings: shown beside that run.
        first: whether this is the process that writes; the others get a Watch that does nothing.

    Raises:
        ConfigError: a folder cannot be written, or Weights & Biases refuses.
    """
    watch = Watch()
    with ExitStack() as stack:
        if first and monitors.tensorboard:
            watch.curves.append(_EventFile(Path(monitors.tensorboard) / monitors.name))
            stack.callback(watch.curves[-1].close)
        if first and monitors.wandb:
            watch.curves.append(_WandbRun(monitors, work, dict(settings or {})))
            stack.callback(watch.curves[-1].close)
        for row in rows:
            watch.write(row)
        yield watch


class Watch:
    """All open monitors as one."""

    def __init__(self) -> None:
        self.curves: list[Curves] = []

    def write(self, row: TrainingStep) -> None:
        """Add one step to each."""
        for curves in self.curves:
            curves.write(row)


class _EventFile:
    """TensorBoard's event file of one round, a scalar a column (float32, as TensorBoard keeps scalars).

    It is made at the first step and begins with the mark by which viewers forget what they read in the files of earlier
    attempts. Those stay: a viewer that is looking at one would lose its way if it went.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._writer = _made("tensorboard", folder), None

    def write(self, row: TrainingStep) -> None:
        writer = self._writer = self._writer or self._begin(row.step)
        for name, value in _scalars(row).items():
            writer.add_scalar(name, value, row.step)
        writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _begin(self, step: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=step)


class _WandbRun:
    """A Weights & Biases run of one round; its id is the same in every attempt at the same work.

    Online, the service has the steps of earlier attempts, and they are not sent again; offline, this attempt's folder
    takes the place of theirs. Of the machine, the code and the output nothing is recorded.
    """

    def __init__(self, monitors: Monitors, work: str, settings: dict[str, Any]) -> None:
        import wandb

        folder = _made("wandb", Path(monitors.wandb))
        identifier = hashlib.sha256(f"{monitors.name}\n{work}".encode()).hexdigest()[:16]
        offline = monitors.wandb_mode == "offline"
        if offline:
            for older in folder.glob(f"wandb/offline-run-*-{identifier}"):
                shutil.rmtree(older)
        try:
            self._run = wandb.init(
                dir=str(folder),
                project=monitors.wandb_project,
                group=monitors.name.partition("/")[0] or None,
                name=monitors.name or None,
                config=settings,
                id=identifier,
                mode="offline" if offline else "online",
                resume=None if offline else "allow",
                reinit="create_new",
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_code=True,
                    disable_git=True,
                    x_disable_machine_info=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                ),
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"Weights & Biases refused: {error}",
                where=f"training.wandb_project {monitors.wandb_project!r}, mode {monitors.wandb_mode}",
                remedy="Log in (wandb login, or WANDB_API_KEY in the environment), or set training.wandb_mode: offline "
                "and send the run later with wandb sync.",
            ) from error
        self._next = self._run.step

    def write(self, row: TrainingStep) -> None:
        if row.step >= self._next:
            self._run.log(_scalars(row), step=row.step, commit=True)

    def close(self) -> None:
        self._run.finish()


def _scalars(row: TrainingStep) -> dict[str, float]:
    """The row's numbers by column name; a null is left out, true is 1."""
    values = row.model_dump(exclude={_STEP})
    return {name: float(value) for name, value in values.items() if value is not None}


def _inside(field: str, folder: str) -> str:
    """A folder below the one that holds all curves, symbolic links resolved; empty stays empty."""
    if not folder:
        return ""
    root = Path(os.environ.get(ROOT_VARIABLE) or ".").resolve()
    place = (root / folder).resolve()
    if not place.is_relative_to(root):
        raise ConfigError(
            f"training.{field} is {folder!r}, which leads out of {root}",
            where=f"training.{field}",
            expected=f"a folder in the working folder, or in the one that {ROOT_VARIABLE} names",
            remedy=f"Name a folder there, or set {ROOT_VARIABLE} on the worker.",
        )
    return str(place)


def _made(field: str, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder for curves: {error.strerror}",
            where=f"training.{field}, {folder}",
            remedy="Name one that can be written.",
        ) from error
    return folder
