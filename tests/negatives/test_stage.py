"""The stage on a real store: parts, dead letters, a killed run, another part size."""

from __future__ import annotations

import gc
import time
import uuid
import weakref
from typing import Any

import pytest

from mbpo_core.config import NegativesConfig, PolicyConfig, SamplesConfig
from mbpo_core.execution import execute, plan
from mbpo_core.models.digest import import_policy
from mbpo_core.negatives import stage
from mbpo_core.negatives.tasks import Task, open_tasks
from mbpo_core.records import Image, Sample
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader
from tests.negatives import feeding

SETTINGS = NegativesConfig(
    epsilon=16 / 255, step_size=4 / 255, steps=2, max_new_tokens=24, batch_size=2, part_rows=8, max_dropped_share=0.5
)
POLICY = PolicyConfig(device="cpu")


class Log:
    """A Progress that remembers how far the stage is, and may kill it."""

    def __init__(self, die_after: int = 1_000_000) -> None:
        self.total, self.older, self.done, self.die_after = 0, 0, 0, die_after

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.total, self.older = total, done

    def advance(self, count: int = 1, **figures: float) -> None:
        self.done += count
        if self.done >= self.die_after:
            raise KeyboardInterrupt

    def log(self, message: str) -> None:
        pass


def _store() -> Store:
    return Store(f"memory://{uuid.uuid4().hex}", stages={**STAGES, "samples": feeding.SPEC})


def _run(store: Store, samples: list[Sample], log: Log, settings: NegativesConfig = SETTINGS) -> ArtifactReader:
    feeding.ROWS[:] = samples
    fed = execute(store, plan(store, feeding.SPEC, SamplesConfig(), {}), Log())
    spec = STAGES["negatives"]
    planned = plan(store, spec, settings, {"samples": fed}, {"policy": import_policy(POLICY)}, POLICY)
    return store.reader(execute(store, planned, log))


@pytest.fixture
def samples(offline_samples: list[Sample]) -> list[Sample]:
    """Eighteen offline samples, one of them unreadable, and one of another split in between."""
    mixed = list(offline_samples[:19])
    mixed[3] = mixed[3].model_copy(update={"split": "online"})
    mixed[6] = mixed[6].model_copy(update={"images": [Image(bytes=b"?")]})
    return mixed


def test_stage_writes_negatives_and_dead_letters(samples: list[Sample]) -> None:
    log = Log()
    mined = _run(_store(), samples, log)
    assert (log.total, log.done) == (18, 18)
    assert mined.count() + mined.count("dropped") == 18
    reasons = {row["sample_id"]: row["reason"] for row in mined.rows("dropped")}
    assert reasons[samples[6].sample_id] == "unreadable_image"
    order = [sample.sample_id for sample in samples if sample.split == "offline"]
    kept = [row["sample_id"] for row in mined.rows(columns=["sample_id"])]
    assert kept == [sample_id for sample_id in order if sample_id not in reasons]
    summary = mined.json("mining.json")["all"]
    assert (summary["attacked"], summary["kept"]) == (17, len(kept))
    assert (summary["steps"], summary["mean_steps"], summary["ended_early"]) == (34, 2.0, 0)


def test_part_size_and_a_killed_run_change_nothing(samples: list[Sample]) -> None:
    whole = _run(_store(), samples, Log()).ref.content
    larger = SETTINGS.model_copy(update={"part_rows": 16})
    assert _run(_store(), samples, Log(), larger).ref.content == whole
    store = _store()
    with pytest.raises(KeyboardInterrupt):
        _run(store, samples, Log(die_after=16))
    resumed = Log()
    assert _run(store, samples, resumed).ref.content == whole
    assert (resumed.older, resumed.done) == (8, 10), "the first part was done and is adopted"


def test_never_more_than_two_windows_are_in_memory(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Task]] = []
    alive: list[int] = []

    def opening(policy: Any, rows: Any, max_new_tokens: int) -> Any:
        opened = open_tasks(policy, rows, max_new_tokens)
        seen.extend(weakref.ref(task) for task in opened if isinstance(task, Task))
        time.sleep(0.05)  # a window that was just finished may still be on its way out
        alive.append(sum(reference() is not None for reference in seen))
        return opened

    monkeypatch.setattr(stage, "open_tasks", opening)
    _run(_store(), [*samples, *(s.model_copy(update={"sample_id": f"again-{s.sample_id}"}) for s in samples)], Log())
    assert len(seen) == 34
    assert len(alive) == 5
    assert max(alive) <= 16
    gc.collect()
    assert not any(reference() is not None for reference in seen)


def test_no_offline_samples_need_no_model(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "load_policy", None)
    online = [sample.model_copy(update={"split": "online"}) for sample in samples]
    log = Log()
    with pytest.raises(Exception, match="negatives"):  # the store refuses an artifact without rows
        _run(_store(), online, log)
    assert log.total == 0


def test_key_regions_are_stored_and_made_again(samples: list[Sample]) -> None:
    settings = SETTINGS.model_copy(update={"method": "key_region", "detector": "boxes"})
    mined = _run(_store(), samples, Log(), settings)
    rows = list(mined.rows())
    assert len(rows) >= 8
    assert {row["detector"] for row in rows} == {"boxes", "global"}
    for row in rows:
        assert len(row["masks"]) == len(row["rejected_images"]) == len(row["images"]) == 1
        assert bool(row["keywords"]) or row["detector"] == "global"
    assert _run(_store(), samples, Log(), settings).ref.content == mined.ref.content
