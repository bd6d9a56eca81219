"""The table of stages agrees with the code it names."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

import mbpo_core
from mbpo_core.stages import STAGES

ROOT = Path(mbpo_core.__file__).parent
# Not part of any stage's logic: what they compute does not depend on how it is stored or run.
PLUMBING = {"store"}


def _packages_imported(package: Path) -> set[str]:
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[1] for name in names if name.startswith("mbpo_core.")}
    return {name for name in found if (ROOT / name).is_dir()} - PLUMBING


@pytest.mark.parametrize("name", STAGES)
def test_the_code_digest_covers_what_a_stage_imports(name: str) -> None:
    spec = STAGES[name]
    assert all(importlib.util.find_spec(module) for module in spec.modules)
    own = {module.split(".")[1] for module in spec.modules}
    assert spec.entry.startswith(f"{spec.modules[0]}.")
    imported = set().union(*(_packages_imported(ROOT / package) for package in own))
    assert imported <= own, f"add mbpo_core.{', mbpo_core.'.join(imported - own)} to the modules of stage {name}"
