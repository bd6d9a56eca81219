"""`mbpo evaluation --benchmark`: from published files and a model to the benchmark's own table."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.benchmarking import LONGEST, TABLES, TITLES, Question, headline, judged_cell
from flows.cli import Benchmark, app
from mbpo_core.config import PipelineConfig
from mbpo_core.demo.scenes import place, render, to_png
from mbpo_core.errors import ConfigError, DataError, MbpoError, StoreError
from mbpo_core.samples.benchmarks import BENCHMARKS
from mbpo_core.store import Store
from tasks.run import Run
from tests.flows import fakes
from tests.samples.benchmarks import layouts
from tests.samples.helpers import write_lines

THINGS = ("banana", "frog", "car", "bell", "tomato", "guitar")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "runs")


def make_pope_of_scenes(folder: Path) -> tuple[Path, Path]:
    """POPE's files about pictures that the demo's model can read: each shows one thing, and is asked for two."""
    data, images = folder / "POPE", folder / "pictures"
    data.mkdir(parents=True)
    images.mkdir()
    rng = random.Random(0)
    lines: dict[str, list[Any]] = {"random": [], "popular": [], "adversarial": []}
    for index, thing in enumerate(THINGS):
        name = f"{index}.png"
        (images / name).write_bytes(to_png(render(place(rng, [(thing, "red")]))))
        absent = THINGS[(index + 1) % len(THINGS)]
        for subset in lines.values():
            subset += [
                layouts.pope_line(2 * index, name, thing, "yes"),
                layouts.pope_line(2 * index + 1, name, absent, "no"),
            ]
    for subset, rows in lines.items():
        write_lines(data / f"coco_pope_{subset}.json", rows)
    return data, images


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["evaluation", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_pope_is_asked_of_a_model_and_counted(store: Store, tmp_path: Path, prefect: None) -> None:
    data, images = make_pope_of_scenes(tmp_path)
    arguments = ["--benchmark", "pope", "--data", str(data), "--images", str(images), "--model", "demo:soft"]
    arguments += ["--set", "evaluation.max_new_tokens=8", "--set", "evaluation.bootstrap=100"]
    told = invoke(*arguments)
    assert "POPE, run pope-demo-soft" in told
    evaluation = store.reader(store.run("pope-demo-soft").pointers()["evaluation"])
    rows = list(evaluation.rows())
    assert len(rows) == 36
    entries = evaluation.json("summary.json")["policies"]["base"]
    for subset in ("random", "popular", "adversarial"):
        mine = [row for row in rows if row["probe"] == f"existence_{subset}"]
        # Counted from the texts alone, as the published script reads them.
        no = [any(word in ("No", "not", "no") for word in row["text"].split(".")[0].split(" ")) for row in mine]
        absent = [row["answer"] == "no" for row in mine]
        right = sum(said == truth for said, truth in zip(no, absent, strict=True))
        found = sum(not said and not truth for said, truth in zip(no, absent, strict=True))
        assert entries[f"pope_{subset}_accuracy"]["value"] == pytest.approx(right / 12)
        assert entries[f"pope_{subset}_recall"]["value"] == pytest.approx(found / 6)
        assert entries[f"pope_{subset}_yes_ratio"]["value"] == pytest.approx(no.count(False) / 12)
        assert f"POPE, {subset}: F1" in told
    assert 0 < sum(row["verdict"] == "correct" for row in rows) < 36  # the model answers, and not always alike
    assert "All numbers: mbpo show evaluation --run pope-demo-soft" in told
    again = invoke(*arguments)  # everything is there
    assert "to do" not in again
    assert "POPE, run pope-demo-soft" in again


def test_mmhal_writes_responses_for_the_judge_and_adds_up_what_it_says(
    store: Store, tmp_path: Path, prefect: None
) -> None:
    folder = layouts.make_mmhal(tmp_path)
    told = invoke(
        "--benchmark", "mmhal", "--data", str(folder), "--model", "demo:soft", "--set", "evaluation.max_new_tokens=4"
    )  # fmt: skip
    file = tmp_path / "responses" / "mmhal-demo-soft-base.json"
    assert "Response file of base: responses/mmhal-demo-soft-base.json" in told.replace("\n", "")
    answers = [item["model_answer"] for item in json.loads(file.read_text())]
    evaluation = store.reader(store.run("mmhal-demo-soft").pointers()["evaluation"])
    texts = {row["sample_id"]: row["text"] for row in evaluation.rows()}
    assert answers == [texts[f"mmhal-{index}"] for index in range(3)]
    judged = layouts.put_json(tmp_path / "judged.json", ["Rating: 6", "Rating: 1", "Rating: 5"])
    table = invoke("--benchmark", "mmhal", "--data", str(folder), "--judged", str(judged))
    lines = {cells[1].strip(): cells[2].strip() for line in table.splitlines() if len(cells := line.split("│")) > 3}
    assert lines["mmhal_score"].startswith("4.00 [")
    assert lines["mmhal_normalised"].startswith("66.7 [")
    assert lines["mmhal_hallucination"].startswith("33.3 [")
    assert lines["mmhal_score_attribute"].startswith("5.50 [")
    assert lines["mmhal_score_adversarial"] == "1.00"


def test_the_policies_of_a_run_are_asked_and_its_own_evaluation_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.benchmarks import follow_benchmark
    from flows.pipeline import follow_method

    fakes.install(monkeypatch)
    settings = PipelineConfig.model_validate(
        {
            "run": "r",
            "method": "mbpo",
            "rounds": 1,
            "baselines": ["dpo"],
            "evaluation": {"batch_size": 7, "split": "dev"},
        }
    )
    store.run("r").save_config(settings.model_dump(mode="json"))
    follow_method(Run(settings, store))
    before = store.run("r").pointers()
    data, images = layouts.make_pope(tmp_path)
    config = Question("pope", data, images, run="r").config(store)
    assert (config.evaluation.batch_size, config.evaluation.split, config.run) == (7, "eval", "pope-r")
    made = follow_benchmark(Run(config, store), "r")
    assert list(store.reader(made).json("given.json")["policies"]) == ["base", "dpo", "trained"]
    policies = store.manifest("evaluation", made.digest).policies
    assert policies["trained"].artifact is not None
    assert policies["trained"].artifact.digest == before["training/0"].digest
    assert store.run("r").pointers() == before
    assert store.run("pope-r").pointers()["evaluation"] == made


def test_a_run_that_has_not_been_trained_is_refused(store: Store, tmp_path: Path) -> None:
    from flows.benchmarks import asked_policies

    data, _ = layouts.make_pope(tmp_path)
    with pytest.raises(ConfigError, match="run 'nobody' is not known"):
        Question("pope", data, run="nobody").config(store)
    settings = PipelineConfig(run="young", method="mbpo", rounds=1)
    store.run("young").save_config(settings.model_dump(mode="json"))
    with pytest.raises(StoreError, match="no training/0 yet"):
        asked_policies(Run(settings, store), "young")


REFUSED: dict[str, tuple[list[str], type[MbpoError], str]] = {
    "no files named": (["--benchmark", "pope", "--model", "demo:soft"], ConfigError, "--data"),
    "nobody to ask": (["--benchmark", "pope", "--data", "."], ConfigError, "neither a model nor a run"),
    "both": (["--benchmark", "pope", "--data", ".", "--model", "m", "--run", "r"], ConfigError, "both a model and"),
    "another folder": (["--benchmark", "vlind", "--data", ".", "--model", "demo:soft"], DataError, "data.json"),
    "no such setting": (
        ["--benchmark", "pope", "--data", ".", "--model", "m", "--set", "evaluation.x=1"],
        ConfigError,
        "evaluation.x",
    ),
    "no such model": (["--benchmark", "pope", "--data", ".", "--model", "./none"], MbpoError, "none"),
    "no judge": (["--benchmark", "pope", "--data", ".", "--judged", "x.json"], ConfigError, "--benchmark mmhal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_is_told_before_anything_is_loaded(case: str, store: Store) -> None:
    arguments, error, words = REFUSED[case]
    with pytest.raises(error) as raised:
        invoke(*arguments)
    assert words in str(raised.value)
    assert raised.value.remedy
    assert not Path(store.root, "artifacts").exists()


@pytest.mark.parametrize("arguments", [[], ["--benchmark", "pope", "--data", ".", "--mode", "rerun"]])
def test_options_that_do_not_belong_together_are_wrong_usage(arguments: list[str], store: Store) -> None:
    assert CliRunner().invoke(app, ["evaluation", *arguments]).exit_code == 2


def test_a_plan_is_shown_without_asking(store: Store, tmp_path: Path, prefect: None) -> None:
    data, images = layouts.make_pope(tmp_path)
    told = invoke(
        "--benchmark", "pope", "--data", str(data), "--images", str(images), "--model", "demo:soft", "--dry-run"
    )
    assert "samples" in told
    assert "evaluation" in told
    assert not store.run("pope-demo-soft").pointers()


def test_every_benchmark_has_a_title_and_a_table() -> None:
    assert set(BENCHMARKS) == set(TITLES) == set(TABLES) == {benchmark.value for benchmark in Benchmark}
    assert set(LONGEST) < set(BENCHMARKS)


def test_names_and_settings_of_what_is_asked(store: Store) -> None:
    asked = Question("amber", Path("AMBER"), model="/models/LLaVA 1.5 (7B)")
    assert asked.name == "amber-llava-1.5-7b-"
    assert asked.config(store).evaluation.max_new_tokens == 512
    changed = Question(
        "amber", Path("AMBER"), model="m", changes=["evaluation.max_new_tokens=64", "policy.dtype=bfloat16"]
    )
    assert changed.config(store).evaluation.max_new_tokens == 64
    assert (changed.config(store).policy.model, changed.config(store).policy.dtype) == ("m", "bfloat16")


def test_a_table_holds_the_benchmarks_numbers_in_its_order() -> None:
    described = {name: {"headline": False, "place": place} for place, name in enumerate(("blind_gap", "b", "a"))}
    shown = headline({"metrics": described}, ["a", "missing", "blind_gap"])["metrics"]
    assert [(name, one["headline"], one["place"]) for name, one in shown.items()] == [
        ("a", True, 0),
        ("blind_gap", True, 1),
    ]
    assert judged_cell("mmhal_hallucination", {"value": 0.5, "low": 0.25, "high": 0.75}) == "50.0 [25.0, 75.0]"
    assert judged_cell("mmhal_score_other", {"value": 2.0, "low": None, "high": None}) == "2.00"
