"""The project as a whole: pinned versions, the wheel, the make targets, what an import may cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], "pip", "setuptools"]
    names = {re.split(r"[<>=!~;\[ ]", requirement)[0].lower() for requirement in wanted}
    assert names <= _pins().keys()


def test_versions_that_must_not_move() -> None:
    pins = _pins()
    assert pins["torch"] == "2.13.0"
    assert pins["prefect"].startswith("3.8.")
    # A newer fastapi makes prefect's server fail at import, a newer SQLAlchemy its scheduler.
    assert tuple(map(int, pins["fastapi"].split(".")))[:2] < (0, 151)
    assert pins["sqlalchemy"].startswith("2.0.")


def test_license_is_the_whole_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_old_python_is_refused_with_a_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" || exit 1\n', encoding="utf-8")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stdout
    assert "Python 3.9.1" in done.stdout
    assert "make PYTHON=" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.split()[-1]


def test_wheel_holds_code_and_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mbpo_core").rglob("*")
        if path.is_file() and path.suffix not in (".pyc",)
    }
    assert data <= names
    assert {f"flows/deployments/{path.name}" for path in (ROOT / "deployments").glob("*.yaml")} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    script = (
        "import sys, flows.cli, tasks, mbpo_core.stages as stages\n"
        "from flows.paths import config_file, deployments_folder\n"
        "from mbpo_core.config import load_config\n"
        "from mbpo_core.models.digest import import_policy\n"
        "config = load_config(config_file('demo'))\n"
        "print(import_policy(config.policy).folder)\n"
        "print(flows.cli.__file__, tasks.__file__, stages.__file__, deployments_folder(), sep='\\n')\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    places = done.stdout.split()
    assert len(places) == 5
    assert all(place.startswith(str(target)) for place in places)
