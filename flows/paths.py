"""Where things lie: run configs, the artifact store, Prefect's own files."""

from __future__ import annotations

import os
from pathlib import Path

from mbpo_core.errors import ConfigError

STORE_VARIABLE = "MBPO_STORE"
CONFIGS_VARIABLE = "MBPO_CONFIGS"
DEFAULT_STORE = "runs"


def deployments_folder() -> Path:
    """The run configs and `prefect.yaml`: beside the flows in a checkout, inside them in an installed wheel."""
    here = Path(__file__).resolve().parent
    packaged = here / "deployments"
    return packaged if packaged.is_dir() else here.parent / "deployments"


def config_file(name: str | Path) -> Path:
    """The run config a user named: a file, or one of the shipped ones (`deployments/demo.yaml`, `demo`).

    Raises:
        ConfigError: if there is no such file; names the shipped ones.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = deployments_folder() / f"{path.stem}.yaml"
    named_so = str(name) in (path.stem, f"deployments/{path.stem}.yaml")
    if named_so and shipped.is_file():
        return shipped
    configs = ", ".join(sorted(file.stem for file in run_configs()))
    raise ConfigError(
        "the run config does not exist", where=str(name), remedy=f"Give the path of a YAML file, or one of: {configs}."
    )


def grid_file(name: str | Path) -> Path:
    """The grid a user named: a file, or one of the shipped ones (`deployments/grids/results.yaml`, `results`).

    Raises:
        ConfigError: if there is no such file; names the shipped ones.
    """
    path, folder = Path(name), deployments_folder() / "grids"
    if path.is_file():
        return path
    shipped = folder / f"{path.stem}.yaml"
    if str(name) in (path.stem, f"deployments/grids/{path.stem}.yaml") and shipped.is_file():
        return shipped
    grids = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
    remedy = f"Give the path of a file, or one of: {grids}."
    raise ConfigError("the grid does not exist", where=str(name), remedy=remedy)


def named_config(name: str) -> Path:
    """The run config that a form names: one in the folder that MBPO_CONFIGS names on the worker, or a shipped one.

    A form may name files of that folder and nothing else, so links that lead out of it are not followed.

    Raises:
        ConfigError: there is no such config; names those there are.
    """
    folder = os.environ.get(CONFIGS_VARIABLE, "")
    own = sorted(Path(folder).resolve().glob("*.yaml")) if folder else []
    known = {file.stem: file for file in [*run_configs(), *own] if file.is_file()}
    found = known.get(name.removesuffix(".yaml"))
    if found is None or (found in own and found.resolve().parent != found.parent):
        raise ConfigError(
            f"there is no run config {name!r}",
            where=f"shipped configs, and the folder in {CONFIGS_VARIABLE} on the worker ({folder or 'not set'})",
            expected=f"one of {', '.join(sorted(known))}",
            remedy="Name one of them without a path, or put the file there.",
        )
    return found


def run_configs() -> list[Path]:
    """The shipped run configs."""
    return sorted(file for file in deployments_folder().glob("*.yaml") if file.name != "prefect.yaml")


def use_store(url: str | None) -> str:
    """Settle on a store root (option, then MBPO_STORE, then ./runs) and hand it to everything started from here.

    The environment carries it, not a flow parameter: whoever may start a run must not choose where it writes.
    """
    root = url or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
    if "://" not in root:
        root = str(Path(root).expanduser().resolve())
    os.environ[STORE_VARIABLE] = root
    return root


def prefect_home(store: str) -> Path:
    """An absolute folder for Prefect's database and results: beside a local store, else in the user's cache."""
    if "://" not in store:
        return Path(store).resolve().parent / ".prefect"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache).resolve() / "mbpo" / "prefect"
