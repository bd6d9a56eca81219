"""`mbpo ablation` with the tiny model: killed half way and run again, it makes what is missing and nothing else."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
import yaml

from mbpo_core.store import Store
from tests.flows.environment import clean, command

GRID = {
    "name": "tiny",
    "config": "smoke",
    "seeds": [0],
    "tokens": 1500,
    "settings": {"samples": {"demo_offline": 6, "demo_online": 4, "demo_eval": 2}, "rollouts": {"prompts": 4}},
    "factors": {"training": {"offline": {"method": "mbpo_offline"}, "online": {"method": "grpo"}}},
}


@pytest.mark.slow
def test_a_killed_ablation_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False), encoding="utf-8")
    words = ["mbpo", "ablation", "--grid", "tiny.yaml", "--output", "out"]
    store = Store(tmp_path / "runs")

    begun = subprocess.Popen(
        [*words, "--jobs", "2"], cwd=tmp_path, env=clean(tmp_path), stderr=subprocess.PIPE, text=True
    )
    assert begun.stderr is not None
    for line in begun.stderr:
        if "done (1 of 3" in line:
            break
    started = psutil.Process(begun.pid).children(recursive=True)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    begun.stderr.read()  # until its processes, which hold the other end, are gone too
    _, left = psutil.wait_procs(started, timeout=20)  # Prefect's temporary servers among them
    assert not left
    made = {
        (stage, digest): manifest.attempt
        for stage, digest in store.artifacts()
        if (manifest := store.manifest(stage, digest)) is not None
    }
    assert {"samples", "evaluation"} <= {stage for stage, _ in made}
    assert not (tmp_path / "out").exists()

    printed = command(words, tmp_path, clean(tmp_path))
    assert "of 3 runs to make" in printed
    assert "3 of 3 runs" not in printed
    for (stage, digest), attempt in made.items():
        manifest = store.manifest(stage, digest)
        assert manifest is not None
        assert manifest.attempt == attempt
    assert (tmp_path / "out" / "index.html").stat().st_size > 10_000
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["cell"] for row in rows} == {"base", "offline", "online"}
    costs = {row["cell"]: row for row in rows if row["seed"] == 0}
    assert costs["online"]["sampled_tokens"] > 0 == costs["online"]["attack_passes"]
    assert costs["offline"]["attack_passes"] > 0 == costs["offline"]["sampled_tokens"]

    again = command(words, tmp_path, clean(tmp_path))
    assert "everything is cached" in again

    beds = {"plain": {}, "slow": {"factors": {"training": {"online": {"training": {"learning_rate": 1e-5}}}}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(GRID | {"testbeds": beds}, sort_keys=False), encoding="utf-8")
    printed = command([*words[:-1], "beds"], tmp_path, clean(tmp_path))
    assert "tiny-plain: 2 cells and the base, seeds 0; everything is cached" in printed
    assert "tiny-slow: 2 cells and the base, seeds 0; 1 of 3 runs to make" in printed
    assert {path.name for path in (tmp_path / "beds").iterdir()} == {"plain", "slow", "overview"}
    overview = (tmp_path / "beds" / "overview" / "index.html").read_text(encoding="utf-8")
    assert "../slow/index.html" in overview
    assert "mbpo ablation --grid tiny.yaml" in overview
