"""`mbpo methods`: complete, quick, and with settings that can be pasted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from flows import cli
from flows.listing import settings_yaml
from mbpo_core.config import build_config
from mbpo_core.methods import METHODS, NEGATIVES, OBJECTIVES
from tests.flows.environment import children_cpu_s

HEAVY = ("torch", "prefect", "transformers", "deepspeed", "datasets")


def said(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def one_line(text: str) -> str:
    """Cells of a table as running text."""
    return " ".join(text.replace("│", " ").split())


def test_every_entry_is_listed() -> None:
    output = said()
    cells = {line.split("│")[1].strip() for line in output.splitlines() if line.startswith("│")}
    assert cells - {""} == {*METHODS, *OBJECTIVES, *NEGATIVES}
    for heading in ("what it does", "source", "needs", "cost"):
        assert output.count(heading) >= 3
    assert "closed-ended questions" in one_line(output)


def test_json_has_three_lists_with_every_entry() -> None:
    listed = json.loads(said("--json"))
    assert list(listed) == ["methods", "objectives", "negatives"]
    for kind, table in (("methods", METHODS), ("objectives", OBJECTIVES), ("negatives", NEGATIVES)):
        assert [entry["name"] for entry in listed[kind]] == list(table)
        for entry in listed[kind]:
            known = table[entry["name"]]  # type: ignore[index]
            assert [entry[name] for name in ("line", "source", "needs", "cost")] == [
                known.line, known.source, known.needs, known.cost,
            ]  # fmt: skip
    methods = {entry["name"]: entry for entry in listed["methods"]}
    assert methods["mfpo"]["settings"] == METHODS["mfpo"].settings
    parts = {name: [methods[name][part] for part in ("objective", "negatives", "images", "online")] for name in methods}
    assert parts["mbpo"] == ["grpo", "adversarial", "", True]
    assert parts["mfpo"] == ["mfpo", "adversarial", "key_region", False]
    assert parts["mbpo_counterfactual"] == ["grpo", "adversarial", "counterfactual", True]
    assert parts["mpo"] == ["mpo", "dropped_image", "", False]
    assert parts["gspo"] == ["", "", "", True]


def test_one_method_as_json_has_its_own_parts_only() -> None:
    listed = json.loads(said("mfpo", "--json"))
    assert [[entry["name"] for entry in listed[kind]] for kind in listed] == [
        ["mfpo"], ["mfpo"], ["adversarial", "key_region"],
    ]  # fmt: skip
    listed = json.loads(said("dapo", "--json"))
    assert [[entry["name"] for entry in listed[kind]] for kind in listed] == [["dapo"], [], []]


@pytest.mark.parametrize("name", METHODS)
def test_settings_can_be_pasted(name: str) -> None:
    """In place of the line `method: ...` they make the same config."""
    output = said(name)
    entry = METHODS[name]
    assert one_line(entry.line) in one_line(output)
    assert entry.cost in one_line(output)
    lines = settings_yaml(name)
    assert lines in output + "\n"
    pasted = build_config(yaml.safe_load(lines) or {"method": "mbpo"}, [], where="test")
    named = build_config({"method": name, **entry.given}, [], where="test")
    assert pasted.model_copy(update={"method": name}) == named
    assert (lines == "") == (name == "mbpo") == ("changes no default" in output)


def test_parts_and_what_they_need_are_named() -> None:
    output = one_line(said("clip_dpo"))
    for words in ("the folder of a CLIP model", "objective dpo:", "negatives ranked:", "min_score_gap"):
        assert words in output
    assert "in place of negatives.clip_model" in output
    output = one_line(said("mfpo"))
    assert "images key_region:" in output
    assert "detector boxes: labelled boxes in meta" in output
    assert "nothing beyond questions with an image and an answer" in output
    assert "verified groups" not in output
    assert "online verified groups" in one_line(said("grpo"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mfp", ["no method 'mfp'", "mfpo", "mbpo methods lists all"]),
        ("Clip-DPO", ["clip_dpo"]),
        ("rdpo", ["rdpo is a value of training.objective"]),
        ("dropped_image", ["dropped_image is a value of negatives.method"]),
        ("zzz", ["no method 'zzz'. mbpo methods lists all"]),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(
    name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["methods", name])
    assert ended.value.code == 1
    message = capsys.readouterr().err
    for word in words:
        assert word in message


@pytest.mark.parametrize("arguments", [[], ["mfpo"], ["--json"]], ids=" ".join)
def test_it_answers_fast_and_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys, flows.cli\n"
        f"try: flows.cli.main(['methods', *{arguments!r}])\n"
        f"finally: print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    before = children_cpu_s()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stderr
    assert children_cpu_s() - before < 2.0
