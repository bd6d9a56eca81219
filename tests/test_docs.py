"""The documents are true: commands exist and parse, links lead somewhere, generated pages are current."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import flows
from docs import generate
from flows.cli import app
from mbpo_core.config import build_config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands of other programs, and the test that runs each.
ELSEWHERE = {
    "python -m docs.generate": "tests/test_docs.py",
    "python -m benchmarks.conflicts": "tests/benchmarks/test_conflicts.py",
    "python -m benchmarks.lmms.pope write --run demo pope.parquet": "tests/benchmarks/test_lmms.py",
    "python -m benchmarks.lmms.pope compare --run demo --policy trained lmms/samples_pope_local.jsonl": (
        "tests/benchmarks/test_lmms.py"
    ),
}
ELSEWHERE |= dict.fromkeys(
    (
        "python -m benchmarks.scale --save",
        "python -m benchmarks.scale --save --zero 3 --set training.offload=all",
        "python -m benchmarks.scale --save --zero 2 --set training.gradient_checkpointing=true",
        "python -m benchmarks.scale --save --zero 2 --set training.lora_rank=16",
    ),
    "tests/benchmarks/test_scale.py",
)
SHELL = ("export ", "source ", "cd ")


def _blocks(language: str) -> list[tuple[Path, str]]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(file, block) for file in DOCUMENTS for block in pattern.findall(file.read_text(encoding="utf-8"))]


def _commands() -> list[tuple[str, str]]:
    return sorted(
        {
            (file.relative_to(ROOT).as_posix(), command)
            for file, block in _blocks("sh")
            for line in block.replace("\\\n", " ").splitlines()
            if (command := line.split("#")[0].strip()) and not command.startswith(SHELL)
        }
    )


@pytest.mark.parametrize(("file", "command"), _commands())
def test_command_in_a_document(file: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert arguments[0] in targets
    elif program == "mbpo":
        assert len(_called(arguments, monkeypatch)) == 1
    else:
        assert command in ELSEWHERE, f"{file}: no test runs {command!r}"
        assert (ROOT / ELSEWHERE[command]).is_file()


def _called(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parse a command line and note which function of `flows.commands` it would call."""
    calls: list[str] = []

    class Recorder(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args, **kwargs: calls.append(name)

    recorder = Recorder("flows.commands")
    monkeypatch.setitem(__import__("sys").modules, "flows.commands", recorder)
    monkeypatch.setattr(flows, "commands", recorder, raising=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return calls


def test_readme_starts_with_the_two_commands() -> None:
    commands = re.findall(r"^```sh\n(.*?)\n```", DOCUMENTS[0].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert commands[:2] == ["make demo", "make test"]


def test_yaml_in_documents_is_a_valid_run_config() -> None:
    blocks = _blocks("yaml")
    assert blocks
    for file, block in blocks:
        build_config(yaml.safe_load(block), [], where=str(file))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        place = (document.parent / target).resolve()
        assert "://" in target or place.exists(), f"{document.name} links to {target}"


def test_generated_documents_are_current() -> None:
    for name in ("configuration", "commands", "methods", "metrics", "performance", "results", "easy_vqa"):
        written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert written == getattr(generate, f"render_{name}")(), "run: make docs"


SIGNED = r"([+-]\d+\.\d)"
DIFFERENCE = re.compile(rf"{SIGNED}\s+\[{SIGNED},\s+{SIGNED};\s+over\s+seeds\s+{SIGNED},\s+{SIGNED}\]")


@pytest.mark.parametrize("name", ["results", "easy_vqa"])
def test_differences_in_the_text_are_those_of_the_numbers(name: str) -> None:
    rows = json.loads((ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))
    measured = {
        tuple(round(row[one], 1) + 0.0 for one in keys)
        for row in rows
        for keys in (
            ("difference", "difference_low", "difference_high", "difference_seed_low", "difference_seed_high"),
            ("baseline_difference", "baseline_low", "baseline_high", "baseline_seed_low", "baseline_seed_high"),
        )
        if all(row.get(one) is not None for one in keys)
    }
    said = DIFFERENCE.findall((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
    assert [one for one in said if tuple(float(number) + 0.0 for number in one) not in measured] == []
    assert len(said) > 10 or name == "easy_vqa"


EFFECT = re.compile(rf"{SIGNED}\s+\[{SIGNED},\s+{SIGNED}\]")


def test_effects_in_the_text_are_those_of_the_numbers() -> None:
    """In the section on where negatives come from, whose brackets are t-intervals over seeds."""
    rows = json.loads((ROOT / "docs" / "effects.json").read_text(encoding="utf-8"))
    keys = ("difference", "difference_low", "difference_high")
    measured = {tuple(round(row[key], 1) + 0.0 for key in keys) for row in rows if row["difference"] is not None}
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    said = EFFECT.findall(page[page.index("## Where negatives come from") : page.index("## What the attack does")])
    assert [one for one in said if tuple(float(number) + 0.0 for number in one) not in measured] == []
    assert len(said) > 5


def test_no_document_names_a_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/(home|work|root)/", document.read_text(encoding="utf-8")), document.name
