"""`mbpo --help`: quick, complete, and free of heavy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from flows.cli import StageName, app
from mbpo_core.stages import STAGES
from tests.flows.environment import children_cpu_s

HEAVY = ("torch", "prefect", "transformers", "deepspeed", "datasets", "pyarrow", "pandas", "numpy", "pydantic")


def test_help_takes_less_than_a_second_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, flows.cli\n"
        "try: flows.cli.main(['--help'])\n"
        f"finally: print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    before = children_cpu_s()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stderr
    assert children_cpu_s() - before < 1.0


def _commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, child in getattr(group, "commands", {}).items():
        found += _commands(child, (*path, name))
    return found


@pytest.mark.parametrize("path", _commands(typer.main.get_command(app)), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output


def test_every_stage_is_a_command() -> None:
    commands = {path[0] for path in _commands(typer.main.get_command(app)) if path}
    assert set(STAGES) <= commands
    assert [stage.value for stage in StageName] == list(STAGES)


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.output.startswith("mbpo ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run"],
        ["run", "--config", "x.yaml", "--force", "nonsense"],
        ["explain"],
        ["training", "--run", "x", "--round", "0", "--baseline", "sft"],
        ["samples", "--run", "x", "--round", "0"],
        ["demo", "--seeds", "0"],
        ["demo", "--setting", "odd"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
