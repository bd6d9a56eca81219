"""deployments/qwen2_5_vl_7b.yaml: valid, found by its name, and every number in it says where it is from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.paths import config_file, run_configs
from mbpo_core.config import PipelineConfig, load_config
from mbpo_core.promotion import check_metrics
from tasks.run import pointer_keys

NAME = "qwen2_5_vl_7b"
SOURCE = re.compile(r"paper[:,]|arXiv:\d{4}\.\d{5}|code \w+/\w+|our default")


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """(path, line) of every number of a YAML document."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from numbers(value, f"{path}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from numbers(value, path)
    elif node.tag.removeprefix("tag:yaml.org,2002:") in ("int", "float"):
        yield path, node.start_mark.line


def unsourced(text: str) -> list[str]:
    """Numbers whose line does not say where they are from."""
    lines = text.splitlines()
    found = [(path, lines[line].partition(" #")[2]) for path, line in numbers(yaml.compose(text))]
    return [path for path, comment in found if not SOURCE.search(comment)]


@pytest.fixture(scope="module")
def settings() -> PipelineConfig:
    return load_config(config_file(NAME))


def test_it_is_a_shipped_config_and_valid(
    settings: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert NAME in [file.stem for file in run_configs()]
    assert config_file(f"deployments/{NAME}.yaml") == config_file(NAME)
    assert settings.run == NAME
    assert (settings.policy.dtype, settings.launch.processes) == ("bfloat16", 8)
    assert settings.samples.source == "parquet"
    assert settings.rollouts.prompts * settings.training_rounds == 2000
    assert settings.training.reward_chosen == 2
    assert len(pointer_keys(settings)) == 9
    check_metrics(settings.promotion.metrics)


def test_every_number_says_where_it_is_from() -> None:
    text = config_file(NAME).read_text(encoding="utf-8")
    assert len(list(numbers(yaml.compose(text)))) > 50
    assert unsourced(text) == []


def test_a_number_without_a_source_would_be_found() -> None:
    text = "a:\n  b: 1 # our default\n  c: 0.5 # tuned\n  d: 1.0e-6\n  e: [2, 3]\n  f: word2\n"
    assert unsourced(text) == ["a.c", "a.d", "a.e", "a.e"]


def test_what_the_numbers_of_one_method_need_is_all_there(settings: PipelineConfig) -> None:
    """A default that changes later must not change what this file does: the numbers that MBPO reads are in it."""
    given = yaml.safe_load(config_file(NAME).read_text(encoding="utf-8"))
    read = {"epsilon", "step_size", "steps", "temperature", "top_p", "max_new_tokens", "extra_samples"}
    assert read <= set(given["negatives"])
    asked = {
        "learning_rate", "clip_low", "clip_high", "beta", "max_drop", "reward_chosen", "reward_rejected", "epochs",
        "inner_steps", "pairs_per_step", "groups_per_step", "weight_decay", "max_grad_norm",
    }  # fmt: skip
    assert asked <= set(given["training"])
    assert {"share", "min_gain", "gain_margin", "blind_slack", "min_rejected_logprob"} <= set(given["pairs"])
