"""The bridge to lmms-eval, as far as it goes without lmms-eval; docs/lmms_eval.md says what was run with it."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from benchmarks.lmms import pope
from mbpo_core.config import Section
from mbpo_core.evaluation.existence import official_answer
from mbpo_core.execution import execute, plan
from mbpo_core.progress import NullProgress
from mbpo_core.records import Prediction
from mbpo_core.stage import Row, StageContext, StageSpec
from mbpo_core.store import Store

TASK = Path(pope.__file__).parent


def predictions() -> list[Row]:
    """Three questions to two policies: two of POPE, and one that is not."""
    rows = []
    for policy in ("base", "trained"):
        for number, (probe, answer) in enumerate(
            [("existence_random", "Yes, there is a boot."), ("existence_popular", "no"), ("verification", "yes")]
        ):
            picture = io.BytesIO()
            Image.new("RGB", (4, 4), (number, 0, 0)).save(picture, "PNG")
            row = dict.fromkeys(Prediction.model_fields) | {
                "policy": policy,
                "sample_id": f"q{number}",
                "images": [{"bytes": picture.getvalue(), "path": None}] if policy == "base" else [],
                "question": f"Question {number}?",
                "answer": answer,
                "question_kind": "yes_no",
                "probe": probe,
                "text": "No, sir.",
                "verdict": "wrong",
                "token_gains_gold": [],
                "token_gains_answer": [],
                "meta": "{}",
            }
            rows.append(row)
    return rows


def write(context: StageContext) -> None:
    """A stand-in for the evaluation stage."""
    rows = predictions()
    for part in context.output.parts(len(rows), len(rows)):
        part.finish(rows[part.start : part.stop])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a run `demo` that has been evaluated."""
    opened = Store(tmp_path / "runs")
    spec = StageSpec(name="evaluation", version=1, config=Section, entry=f"{__name__}:write", record=Prediction)
    made = execute(opened, plan(opened, spec, Section(), {}), NullProgress(), spec=spec)
    opened.run("demo").point("evaluation", made)
    return tmp_path / "runs"


def logged(answers: dict[str, str]) -> str:
    """Lines as lmms-eval logs them."""
    rows: list[dict[str, Any]] = [
        {"doc_id": number, "filtered_resps": text, "pope_accuracy": {"question_id": key, "score": 1.0}}
        for number, (key, text) in enumerate(answers.items())
    ]
    return "\n".join(map(json.dumps, rows)) + "\n"


def test_questions_are_written_as_the_task_reads_them(store: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "pope.parquet"
    pope.main(["write", "--run", "demo", "--store", str(store), str(target)])
    assert "2 questions" in capsys.readouterr().out
    task = yaml.safe_load((TASK / "pope_local.yaml").read_text(encoding="utf-8").replace("!function ", ""))
    assert task["dataset_kwargs"] == {"data_files": {"test": target.name}}
    files = {"test": str(target)}
    read = load_dataset(task["dataset_path"], data_files=files, cache_dir=str(tmp_path / "cache"))[task["test_split"]]
    plain = [{name: value for name, value in row.items() if name != "image"} for row in read]
    assert plain == [
        {"question_id": "q0", "question": "Question 0?", "answer": "yes", "category": "random"},
        {"question_id": "q1", "question": "Question 1?", "answer": "no", "category": "popular"},
    ]
    assert [row["image"].getpixel((0, 0)) for row in read] == [(0, 0, 0), (1, 0, 0)]


def test_answers_are_compared_question_by_question(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text(logged({"q1": " No, sir.", "q0": "Yes"}), encoding="utf-8")
    pope.main(["compare", "--run", "demo", "--policy", "trained", "--store", str(store), str(file)])
    told = json.loads(capsys.readouterr().out)
    assert (told["questions"], told["same_text"], told["same_reading"]) == (2, 1, 1)
    assert (told["ours"]["accuracy"], told["theirs"]["accuracy"]) == (0.5, 1.0)


def test_measures_on_counts_of_the_recipe() -> None:
    counts = {("yes", "yes"): 40, ("no", "yes"): 10, ("no", "no"): 35, ("yes", "no"): 15}  # TP, FP, TN, FN
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    measured = pope.measures([truth for truth, _ in pairs], [said for _, said in pairs])
    assert list(measured.values()) == [0.75, 0.8, 0.727273, 0.761905, 0.5]


def test_a_run_without_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"run 'other' of .* has no evaluation yet"):
        pope.main(["write", "--run", "other", "--store", str(tmp_path), str(tmp_path / "pope.parquet")])


def test_the_task_reads_answers_as_we_do() -> None:
    tree = ast.parse((TASK / "utils.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    theirs: dict[str, Any] = {}
    exec(compile(ast.Module([functions["official_answer"]], []), "utils.py", "exec"), theirs)
    for text in (
        "Yes",
        "No",
        "no.",
        "Yes, no",
        "It is not. Yes",
        "none",
        "know",
        "",
        "Yes. No",
        "No, there is no boot.",
    ):
        assert theirs["official_answer"](text) == official_answer(text), text


def test_every_function_that_the_task_names_is_there() -> None:
    named = {
        line.split("utils.")[1].strip()
        for line in (TASK / "pope_local.yaml").read_text().splitlines()
        if "utils." in line
    }
    tree = ast.parse((TASK / "utils.py").read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    there |= {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert named <= there
    assert len(named) > 6
