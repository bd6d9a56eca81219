"""Grids: which cells they hold, what each is called, and what is refused before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.ablating import methods_grid, split_tuned
from flows.paths import config_file, deployments_folder, grid_file
from mbpo_core.ablation.grid import Grid, build_grid, flat, load_grid, make_trials
from mbpo_core.errors import ConfigError

FACTORS = {
    "negatives": {"adversarial": {}, "noise": {"negatives": {"method": "noise"}}},
    "training": {"hybrid": {"method": "mbpo"}, "sft": {"method": "sft", "training": {"learning_rate": 1e-5}}},
    "steps": {10: None, 3: {"negatives": {"steps": 3}}},
}
GIVEN = {"name": "small", "config": "smoke", "seeds": [3, 4], "factors": FACTORS}


def cells(**fields: Any) -> list[str]:
    return [cell.name for cell in build_grid(GIVEN | fields, where="test").all_cells()]


def test_product_is_every_combination_in_order() -> None:
    assert cells() == [
        "adversarial.hybrid.10", "adversarial.hybrid.3", "adversarial.sft.10", "adversarial.sft.3",
        "noise.hybrid.10", "noise.hybrid.3", "noise.sft.10", "noise.sft.3",
    ]  # fmt: skip


def test_sweeps_move_one_factor_from_the_first_levels() -> None:
    assert cells(product=["negatives", "training"], sweep=["steps"]) == [
        "adversarial.hybrid", "adversarial.sft", "noise.hybrid", "noise.sft", "adversarial.hybrid.steps-3",
    ]  # fmt: skip
    assert cells(sweep=["steps"]) == ["default", "steps-3"]


def test_listed_cells_and_excluded_ones() -> None:
    listed = [{"training": "sft"}, {"training": "sft", "steps": 10}, {"negatives": "noise", "steps": 3}]
    assert cells(cells=listed) == ["training-sft", "negatives-noise.steps-3"]
    assert cells(exclude=[{"training": "sft", "negatives": "noise"}, {"steps": 3}]) == [
        "adversarial.hybrid.10", "adversarial.sft.10", "noise.hybrid.10",
    ]  # fmt: skip


def test_settings_lie_over_one_another_in_order() -> None:
    given = GIVEN | {
        "tokens": 5000,
        "settings": {"training": {"beta": 0.5, "learning_rate": 0.1}, "evaluation": {"bootstrap": 300}},
        "product": ["training"],
        "tuned": {"sft": {"training": {"beta": 0.25}}},
    }
    grid = build_grid(given, where="test")
    path = config_file("smoke")
    trials = make_trials(grid, path, changes=["pairs.share=0.75"], tuned={"hybrid": ["training.learning_rate=0.2"]})
    assert [(trial.seed, trial.cell) for trial in trials] == [
        (3, "base"), (3, "hybrid"), (3, "sft"), (4, "base"), (4, "hybrid"), (4, "sft"),
    ]  # fmt: skip
    base, hybrid, sft = [trial.config for trial in trials[3:]]
    assert [config.run for config in (base, hybrid, sft)] == [
        "ablation-small-4.base", "ablation-small-4.hybrid", "ablation-small-4.sft",
    ]  # fmt: skip
    assert {config.seed for config in (base, hybrid, sft)} == {4}
    assert {config.training.token_budget for config in (hybrid, sft)} == {5000}
    assert (hybrid.training.learning_rate, sft.training.learning_rate) == (0.2, 1e-5)
    assert (hybrid.training.beta, sft.training.beta) == (0.5, 0.25)
    assert (hybrid.training.objective, sft.training.objective) == ("grpo", "sft")
    assert (hybrid.training.use_online, sft.training.use_online) == (True, False)
    assert {config.pairs.share for config in (hybrid, sft)} == {0.75}
    assert hybrid.evaluation.bootstrap == 300


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factors": {}}, "factors"),
        ({"factors": {"seed": {"a": {}}}}, "like a column"),
        ({"factors": {"Gain": {"a": {}}}}, "cannot be named so"),
        ({"factors": {"gain": {"a b": {}}}}, "cannot be named so"),
        ({"factors": {"gain": {}}}, "levels none"),
        ({"factors": {"gain": {"base": {}}}}, "called base"),
        ({"factors": {"gain": {"a": {"seed": 3}}}}, "seed cannot be a setting here"),
        ({"product": ["gain"]}, "no factor 'gain'"),
        ({"cells": [{"training": "dpo"}]}, "no level 'dpo'"),
        ({"exclude": [{"training": "hybrid"}, {"training": "sft"}]}, "every cell is excluded"),
        ({"baseline": "sft"}, "no cell sft"),
        ({"tuned": {"dpo": {}}}, "no cell dpo"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"seeds": []}, "seeds"),
        ({"budget": 3}, "budget"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_grid(GIVEN | fields, where="test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"learning_rat": 1}}, "training.learning_rat"),
        ({"policy": {"model": "demo:soft"}}, "cell b changes section policy"),
        ({"evaluation": {"per_probe": 5}}, "cell b changes section evaluation"),
    ],
)
def test_cells_are_checked_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    grid = build_grid(GIVEN | {"factors": {"change": {"a": {}, "b": settings}}}, where="test")
    with pytest.raises(ConfigError, match=message):
        make_trials(grid, config_file("smoke"))


def test_testbeds_are_grids_of_their_own() -> None:
    beds = {"plain": {}, "large": {"training": {"beta": 0.125}, "policy": {"model": "demo:soft"}}}
    whole = build_grid(GIVEN | {"testbeds": beds, "settings": {"training": {"beta": 0.5, "epochs": 2}}}, where="test")
    plain, large = whole.on()
    assert [one.testbed for one in (plain, large)] == ["plain", "large"]
    assert whole.on(["large"]) == [large]
    assert whole.on(["large", "plain"]) == [large, plain]
    runs = [make_trials(one, config_file("smoke")) for one in (plain, large)]
    assert [trials[1].config.run for trials in runs] == [
        f"ablation-small-{bed}-3.adversarial.hybrid.10" for bed in ("plain", "large")
    ]
    assert [trials[1].config.training.beta for trials in runs] == [0.5, 0.125]
    assert {trials[1].config.training.epochs for trials in runs} == {2}
    assert [trials[0].config.policy.model for trials in runs] == ["demo:absolute", "demo:soft"]
    assert build_grid(GIVEN, where="test").on() == [build_grid(GIVEN, where="test")]
    with pytest.raises(ConfigError, match=r"no testbed huge.*some of plain, large"):
        whole.on(["plain", "huge"])
    with pytest.raises(ConfigError, match="it names no testbeds"):
        plain.on(["large"])
    with pytest.raises(ConfigError, match="cannot be named so"):
        build_grid(GIVEN | {"testbeds": {"A b": {}}}, where="test")
    with pytest.raises(ConfigError, match="not overview"):
        build_grid(GIVEN | {"testbeds": {"overview": {}}}, where="test")
    with pytest.raises(ConfigError, match="seed cannot be a setting here"):
        build_grid(GIVEN | {"testbeds": {"a": {"seed": 3}}}, where="test")


def test_a_testbed_may_set_levels_differently() -> None:
    own = {"training": {"sft": {"training": {"learning_rate": 1e-3}}}, "steps": {3: {"training": {"beta": 0.5}}}}
    whole = build_grid(GIVEN | {"testbeds": {"plain": {}, "large": {"factors": own, "rounds": 1}}}, where="test")
    plain, large = (
        {trial.cell: trial.config for trial in make_trials(one, config_file("smoke"))} for one in whole.on()
    )
    assert [found["noise.sft.3"].training.learning_rate for found in (plain, large)] == [1e-5, 1e-3]
    assert [found["noise.sft.3"].negatives.steps for found in (plain, large)] == [3, 3]
    assert large["noise.sft.3"].training.beta == large["noise.hybrid.3"].training.beta == 0.5
    assert large["noise.hybrid.10"].training == plain["noise.hybrid.10"].training
    for wrong, message in (
        ({"training": {"dpo": {}}}, "no level 'dpo'"),
        ({"rate": {"a": {}}}, "no level 'a'"),
        ({"training": {"sft": {"seed": 1}}}, "seed cannot be a setting here"),
        ({"training": 1}, "a mapping of factor, level, settings"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_grid(GIVEN | {"testbeds": {"large": {"factors": wrong}}}, where="test")


def test_how_many_questions_are_batched_together_may_differ() -> None:
    factors = {"change": {"a": {}, "b": {"evaluation": {"batch_size": 5}}}}
    assert len(make_trials(build_grid(GIVEN | {"factors": factors}, where="test"), config_file("smoke"))) == 6


def test_files_that_are_no_grid(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("a: [\n", encoding="utf-8")
    for name, message in (("list", "not a mapping"), ("broken", "not valid YAML"), ("absent", "cannot read")):
        with pytest.raises(ConfigError, match=message):
            load_grid(tmp_path / f"{name}.yaml")
    with pytest.raises(ConfigError, match="results-smoke"):
        grid_file("nowhere")


def test_nested_settings_become_overrides() -> None:
    assert flat({"training": {"beta": 0.1, "use_online": False}, "rounds": 2}) == [
        "training.beta=0.1", "training.use_online=false", "rounds=2",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [path.stem for path in (deployments_folder() / "grids").glob("*.yaml")])
def test_shipped_grids_are_valid(name: str) -> None:
    grid = load_grid(grid_file(name))
    trials = make_trials(grid, config_file(grid.config))
    assert len(trials) == len(grid.seeds) * (len(grid.all_cells()) + 1)
    assert min(trial.config.training.token_budget for trial in trials) > 0  # compute is what is equal


def test_methods_are_a_grid_of_one_factor(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("run: small\nseed: 3\nbaselines: [sft]\n", encoding="utf-8")
    grid = methods_grid(file, ["dpo", "mbpo", "mdpo"], 2, 5000, ["rounds=1"], "dpo")
    own = split_tuned(["dpo", "mbpo", "mdpo"], ["dpo:training.learning_rate=0.1"])
    trials = make_trials(grid, file, prefix="compare", changes=["rounds=1"], tuned=own)
    assert [trial.config.run for trial in trials[4:]] == [
        f"compare-small-4.{name}" for name in ("base", "dpo", "mbpo", "mdpo")
    ]
    assert {trial.config.training.token_budget for trial in trials} == {5000}
    assert [trial.config.training.learning_rate for trial in trials[1:4]] == [0.1, 1e-6, 1e-6]
    assert not any(trial.config.baselines for trial in trials)
    assert (grid.name, grid.baseline) == ("small", "dpo")


@pytest.mark.parametrize(
    ("methods", "tokens", "message"),
    [
        (["dpo", "magic"], 1, "magic"),
        (["dpo", "dpo"], 1, "each once"),
        ([], 1, "none cannot be compared"),
        (["dpo"], 0, "no budget"),
    ],
)
def test_methods_that_cannot_be_compared(tmp_path: Path, methods: list[str], tokens: int, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("run: small\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        methods_grid(file, methods, 1, tokens, [])


@pytest.mark.parametrize("change", ["sft:training.beta=1", "training.beta=1"])
def test_tuning_nothing_is_refused(change: str) -> None:
    with pytest.raises(ConfigError, match="tunes none"):
        split_tuned(["dpo"], [change])


def test_the_grid_in_the_documents_is_valid() -> None:
    page = (deployments_folder().parent / "docs" / "ablation.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```yml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    grid = build_grid(yaml.safe_load(block), where="docs/ablation.md")
    assert [cell.name for cell in grid.all_cells()] == [
        "adversarial.hybrid", "adversarial.sft", "noise.hybrid", "adversarial.hybrid.steps-3",
        "adversarial.hybrid.steps-30", "adversarial.sft.steps-30",
    ]  # fmt: skip
    for one in grid.on():
        make_trials(one, config_file(one.config))
    assert set(Grid.model_fields) == set(yaml.safe_load(block))
