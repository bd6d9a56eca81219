"""`mbpo plan-memory` on the deployment of the large model, of which only config.json is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main
from mbpo_core.memory.terms import GIB
from tests.memory.published import PARAMETERS, write_config


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = write_config(tmp_path_factory.mktemp("published"))
    return ["plan-memory", "--config", "qwen2_5_vl_7b", "--set", f"policy.model={folder}"]


def run(command: list[str], *more: str) -> int:
    try:
        main([*command, *more])
    except SystemExit as end:
        return int(str(end.code or 0))
    return 0


def test_the_deployment_fits_where_it_is_meant_to_run(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--device-gib", "80") == 0
    shown = capsys.readouterr().out
    assert "8.29 billion parameters" in shown
    assert "1024 x 768 is 3996 patches and 999 positions" in shown
    assert "training" in shown
    assert "does not fit" not in shown
    assert "weights (largest)" in shown


def test_what_does_not_fit_names_the_settings_that_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--device-gib", "40", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"]["total"] == PARAMETERS
    stages = {stage["stage"]: stage for stage in told["stages"]}
    assert [name for name, stage in stages.items() if not stage["fits"]] == ["negatives", "training"]
    assert stages["negatives"]["knobs"][0]["change"] == "negatives.batch_size=2"
    assert stages["negatives"]["largest"] == "activations, vision"
    best = stages["training"]["knobs"][0]
    assert best["fits"]
    assert best["size"] < 40 * GIB < stages["training"]["size"]
    assert run(command, "--device-gib", "40", "--set", best["change"], "--set", "negatives.batch_size=2") == 0


def test_more_processes_share_more(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for processes in ("4", "8"):
        run(command, "--device-gib", "80", "--processes", processes, "--json")
        stages = json.loads(capsys.readouterr().out)["stages"]
        sizes.append({stage["stage"]: stage["size"] for stage in stages})
    assert sizes[0]["training"] > sizes[1]["training"]
    assert sizes[0]["rollouts"] == sizes[1]["rollouts"]


def test_without_an_accelerator_its_size_is_asked_for(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0")
    assert run(command) == 1
    assert "Give --device-gib" in capsys.readouterr().err
    assert run(command, "--device-gib", "80", "--picture", "wide") == 1
    assert "expected WIDTHxHEIGHT" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told_before_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["plan-memory", "--config", "qwen2_5_vl_7b", "--set", f"policy.model={tmp_path / 'none'}"]
    assert run(missing, "--device-gib", "80") == 1
    assert "config.json of the model cannot be read" in capsys.readouterr().err
