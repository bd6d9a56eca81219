"""What goes wrong is said in prose with a remedy, before anything heavy is imported, and the exit code is 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows import cli

# Arguments, and what the message must name: the thing, the place or the bound, the remedy.
CASES = {
    "no config file": (["run", "--config", "nowhere.yaml"], ["nowhere.yaml", "demo"]),
    "not yaml": (["run", "--config", "BROKEN"], ["not valid YAML", "broken.yaml", "Mend"]),
    "unknown field": (["run", "--config", "demo", "--set", "training.bta=1"], ["training.bta", "configuration.md"]),
    "out of range": (["run", "--config", "demo", "--set", "negatives.epsilon=-1"], ["negatives.epsilon", "0", "-1"]),
    "too far": (
        ["run", "--config", "demo", "--set", "negatives.epsilon=3"],
        ["negatives.epsilon", "must be in [0, 1]", "8/255", "got 3"],
    ),
    "not a change": (["run", "--config", "demo", "--set", "beta"], ["section.field=value"]),
    "no model": (["run", "--config", "demo", "--set", "policy.model=/no/model"], ["/no/model", "policy.model"]),
    "no input": (
        ["run", "--config", "demo", "--set", "samples.source=parquet", "--set", "samples.path=/no/rows.parquet"],
        ["/no/rows.parquet", "samples"],
    ),
    "unknown run": (["show", "--run", "nobody"], ["nobody", "--run"]),
    "unknown run to rerun": (["pairs", "--run", "nobody"], ["nobody", "--config"]),
    "unknown run to explain": (["explain", "--run", "nobody"], ["nobody", "--config"]),
    "another stage's setting": (
        ["pairs", "--run", "x", "--config", "demo", "--set", "training.beta=1"],
        ["training.beta=1", "pairs.field=value"],
    ),
    "nothing upstream": (["pairs", "--run", "x", "--config", "demo"], ["no negatives yet", "mbpo negatives --run x"]),
    "unknown store": (["show", "--run", "x", "--store", "gopher://x"], ["gopher", "s3"]),
    "a bad run name": (["show", "--run", "No Name"], ["No Name", "a-z"]),
    "unknown base setting": (["demo", "train-base", "--output", "x", "--set", "speed=1"], ["speed", "language_steps"]),
}


@pytest.mark.parametrize("case", CASES)
def test_message_names_what_where_and_remedy(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.yaml").write_text("run: [", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    arguments, words = CASES[case]
    with pytest.raises(SystemExit) as ended:
        cli.main([argument.replace("BROKEN", str(tmp_path / "broken.yaml")) for argument in arguments])
    message = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Traceback" not in message
    for word in words:
        assert word in message
    assert not (tmp_path / "runs" / "artifacts").exists()


def test_nothing_heavy_is_imported_before_an_error_is_found(tmp_path: Path) -> None:
    script = (
        "import sys, flows.cli\n"
        "try: flows.cli.main(['run', '--config', 'demo', '--set', 'policy.model=/no/model'])\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.split() == ["False", "False"]


def test_debug_keeps_the_traceback(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", "import flows.cli; flows.cli.main()", "--debug", "run", "--config", "nowhere"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_demo_run_per_seed() -> None:
    from flows.demo import demo_configs

    configs = demo_configs("natural", 3, ["rounds=1"])
    assert [config.run for config in configs] == ["demo-natural", "demo-natural-seed1", "demo-natural-seed2"]
    assert [config.seed for config in configs] == [0, 1, 2]
    assert {config.policy.model for config in configs} == {"demo:soft"}
    assert {config.rounds for config in configs} == {1}
    assert len({json.dumps(config.samples.model_dump()) for config in configs}) == 1
