"""Where things lie, and that every shipped run config can be planned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.paths import config_file, prefect_home, run_configs, use_store
from flows.prefect_environment import prepare_prefect
from mbpo_core.config import PolicyConfig, SamplesConfig, load_config
from mbpo_core.errors import ConfigError
from mbpo_core.store import Store
from tasks.run import Run, expect, pointer_keys


def test_a_shipped_config_is_found_by_either_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file("demo") == config_file("deployments/demo.yaml")
    with pytest.raises(ConfigError, match="demo-natural"):
        config_file("elsewhere/demo.yaml")


def test_an_own_file_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("run: own\n", encoding="utf-8")
    assert load_config(config_file("demo")).run == "own"


@pytest.mark.parametrize("config", run_configs(), ids=lambda path: path.stem)
def test_every_shipped_config_can_be_planned(config: Path, tmp_path: Path) -> None:
    from flows.pipeline import follow_method

    settings = load_config(config)
    assert settings.run == config.stem
    if settings.samples.source != "demo":  # a config to be filled in: model and questions are the user's own
        policy = settings.policy.model_copy(update={"model": PolicyConfig().model})
        settings = settings.model_copy(update={"policy": policy, "samples": SamplesConfig()})
    run = Run(settings, Store(tmp_path), perform=expect)
    follow_method(run)
    assert {plan.key for plan in run.plans} == set(pointer_keys(settings))


def test_the_store_is_the_option_then_the_variable_then_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MBPO_STORE", raising=False)
    assert use_store(None) == str(tmp_path / "runs")
    monkeypatch.setenv("MBPO_STORE", "/some/where")
    assert use_store(None) == "/some/where"
    assert use_store("memory://here") == "memory://here"
    assert use_store(None) == "memory://here", "what is started from here must use the same store"


def test_prefect_lies_beside_a_local_store_and_keeps_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert prefect_home("s3://bucket/runs") == tmp_path / "cache" / "mbpo" / "prefect"

    prepare_prefect(str(tmp_path / "runs"))

    assert os.environ["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "120"


def test_a_named_server_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    prepare_prefect(str(tmp_path / "runs"))
    assert "PREFECT_HOME" not in os.environ
