"""Which stages run again, with real stages under a real server: only those whose result can differ."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.store import Store
from tests.service.conftest import Service

RUN = "reruns"
FORM: dict[str, Any] = {"base": "smoke", "fields": "all", "config": {"run": RUN, "rounds": 2, "seed": 7}}
KEYS = ["samples", "negatives", "pairs", "rollouts/0", "training/0", "rollouts/1", "training/1", "evaluation", "report"]


@pytest.fixture(scope="module")
def store(service: Service) -> Store:
    """The store after a first run."""
    run_id = service.start_run("pipeline/manual", **FORM)
    service.wait_for(run_id, "COMPLETED", timeout_s=600)
    return Store(service.store)


def _states(service: Service, run_id: str) -> dict[str, str]:
    """State name of each task run, by run pointer."""
    found: list[dict[str, Any]] = service.ask("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
    names = {key.replace("/", "-"): key for key in KEYS}
    return {names[task["name"].rpartition("-")[0]]: task["state_name"] for task in found}


def _again(service: Service, **changes: Any) -> dict[str, str]:
    run_id = service.start_run("pipeline/manual", **FORM | {"config": FORM["config"] | changes})
    service.wait_for(run_id, "COMPLETED", timeout_s=600)
    return _states(service, run_id)


def _ran(states: dict[str, str]) -> list[str]:
    assert set(states) == set(KEYS)
    assert set(states.values()) <= {"Completed", "Cached"}
    return [key for key in KEYS if states[key] == "Completed"]


def _parts(store: Store, key: str) -> list[Path]:
    reader = store.reader(store.run(RUN).pointers()[key])
    base = Path(reader.ref.uri)
    return [base / part.file.path for part in reader.manifest.parts]


def test_second_run_is_cached_and_loads_nothing(service: Service, store: Store) -> None:
    assert _ran(_again(service)) == []
    script = (
        "import sys\n"
        "from flows.opening import recorded_config\n"
        "from flows.pipeline import follow_method\n"
        "from mbpo_core.store import Store\n"
        "from tasks.run import Run\n"
        f"store = Store({str(service.store)!r})\n"
        f"run = Run(recorded_config(store, {RUN!r}), store)\n"
        "follow_method(run)\n"
        "print([plan.status for plan in run.plans], 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=service.environment
    )
    assert done.stdout.strip() == f"{['cached'] * len(KEYS)} False False"


def test_a_deleted_part_reruns_its_stage_and_nothing_below(service: Service, store: Store) -> None:
    before = store.run(RUN).pointers()
    _parts(store, "pairs")[0].unlink()
    assert _ran(_again(service)) == ["pairs"]
    assert store.run(RUN).pointers() == before  # the same content under the same digest


def test_a_filter_reruns_what_it_decides(service: Service, store: Store) -> None:
    """A share that keeps other pairs: mining and the first rollouts stand, everything learned from pairs does not."""
    kept = _ran(_again(service, pairs={"share": 0.5}))
    assert kept == ["pairs", "training/0", "rollouts/1", "training/1", "evaluation", "report"]
    assert _ran(_again(service)) == []  # and back: every artifact is still there


def test_a_damaged_byte_is_detected(service: Service, store: Store) -> None:
    part = _parts(store, "rollouts/0")[0]
    whole = part.read_bytes()
    aside = part.with_name("aside")  # parts may be hard links
    shutil.copyfile(part, aside)
    aside.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    aside.replace(part)
    explained = service.command("mbpo", "explain", "--run", RUN)
    assert "DAMAGED" in explained
    assert _ran(_again(service)) == ["rollouts/0"]
    assert "DAMAGED" not in service.command("mbpo", "explain", "--run", RUN)
