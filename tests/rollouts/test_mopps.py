"""Prompts picked by what is known of their success rate: the arithmetic, the picking, and rounds through a store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import PipelineConfig, PolicyConfig, RolloutsConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.errors import DataError
from mbpo_core.execution import execute, plan
from mbpo_core.models.resolve import resolve_model
from mbpo_core.progress import NullProgress
from mbpo_core.records import CLOSED_KINDS, Sample
from mbpo_core.rollouts.collecting import Collector, Opened
from mbpo_core.rollouts.drawing import draw
from mbpo_core.rollouts.mopps import FILE, Posterior, learn, pick
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader
from tasks.rollouts import collect_rollouts
from tasks.run import Run
from tests.flows import fakes
from tests.samples.helpers import commit_rows

IDS = [f"s{i}" for i in range(240)]


def group(sample_id: str, right: int, of: int) -> dict[str, Any]:
    """A row of which `right` completions are correct, and the others wrong and unparsed by turns."""
    wrong = [{"verdict": ("wrong", "unparsed")[i % 2]} for i in range(of - right)]
    return {"sample_id": sample_id, "completions": [{"verdict": "correct"}] * right + wrong}


def picked(ids: Sequence[str], posterior: Posterior | None = None, **changes: Any) -> list[str]:
    settings = {"prompts": 20, "pool": 4, "round_index": 0, "seed": 0, **changes}
    return [ids[position] for position in pick(ids, posterior or {}, **settings)]


def test_counts_by_hand() -> None:
    first = learn({}, [group("a", 6, 8), group("b", 0, 8)], 0.5)
    assert first == {"a": (7.0, 3.0), "b": (1.0, 9.0)}  # 0.5 + 0.5 + 6, 0.5 + 0.5 + 2; 0.5 + 0.5, 0.5 + 0.5 + 8
    second = learn(first, [group("a", 4, 8)], 0.5)
    assert second == {"a": (8.0, 6.0), "b": (1.0, 9.0)}  # 3.5 + 0.5 + 4, 1.5 + 0.5 + 4; not asked: stays
    assert learn(first, [group("a", 4, 8)], 1.0)["a"] == (11.0, 7.0)  # nothing is forgotten
    assert learn(first, [group("a", 4, 8)], 0.0)["a"] == (5.0, 5.0)  # only the last group counts
    assert first == {"a": (7.0, 3.0), "b": (1.0, 9.0)}  # what was handed in is left alone


@pytest.mark.parametrize(("right", "expected"), [(1, (2.0, 1.0)), (0, (1.0, 2.0))])
def test_one_completion_is_one_count(right: int, expected: tuple[float, float]) -> None:
    """The released code reads `(... + s n) if n > 1 else 8`: a single completion set both counts to 8."""
    assert learn({}, [group("a", right, 1)], 1.0) == {"a": expected}
    assert learn({"a": (5.0, 3.0)}, [group("a", right, 1)], 0.5)["a"] == (3.0 + right, 2.0 + 1 - right)


def test_picks_come_to_lie_near_a_half() -> None:
    """240 prompts, a third of them always right, a third never, a third right half the time."""
    rates = {sample_id: (0.0, 0.5, 1.0)[i % 3] for i, sample_id in enumerate(IDS)}
    sampler, shares = random.Random(0), []
    posterior: dict[str, tuple[float, float]] = {}
    for round_index in range(20):
        asked = picked(IDS, posterior, round_index=round_index, pool=8)
        shares.append(sum(rates[one] == 0.5 for one in asked) / len(asked))
        rows = [group(one, sum(sampler.random() < rates[one] for _ in range(8)), 8) for one in asked]
        posterior = learn(posterior, rows, 0.5)
    assert sum(shares[:5]) / 5 < 0.5  # little is known yet: a third by chance
    assert sum(shares[-5:]) / 5 > 0.7
    assert len(posterior) > 200  # and nearly all had their turn


def test_a_known_half_is_preferred_to_a_known_extreme_and_the_unknown_has_its_chance() -> None:
    posterior = {one: ((40.0, 40.0), (79.0, 1.0), (1.0, 79.0))[i % 3] for i, one in enumerate(IDS[:180])}
    halves = set(IDS[:180:3])
    for round_index in range(5):
        asked = set(picked(IDS, posterior, round_index=round_index, prompts=60, pool=4))
        assert asked <= halves | set(IDS[180:])
        assert len(asked & halves) > 40
        assert asked & set(IDS[180:])


def test_a_pick_depends_on_seed_round_and_ids_only() -> None:
    posterior = {one: (1.0 + i % 7, 1.0 + i % 5) for i, one in enumerate(IDS[:100])}
    first = picked(IDS, posterior)
    assert first == picked(IDS, posterior)
    shuffled = random.Random(1).sample(IDS, len(IDS))
    assert picked(shuffled, posterior) == first  # in the same order, too
    assert picked(IDS, posterior, seed=1) != first
    assert picked(IDS, posterior, round_index=1) != first


def test_no_prompt_twice_and_all_where_there_are_few() -> None:
    for prompts, pool in ((1, 1), (7, 3), (240, 1), (300, 8)):
        asked = picked(IDS, prompts=prompts, pool=pool)
        assert len(asked) == len(set(asked)) == min(prompts, 240)
    assert picked([], prompts=3) == []


def test_candidates_are_drawn_without_looking_at_what_is_known() -> None:
    known = dict.fromkeys(IDS, (1.0, 99.0))
    assert set(picked(IDS, known, pool=1)) == set(picked(IDS, pool=1))
    rounds = [set(picked(IDS, pool=1, round_index=r)) for r in range(3)]
    assert len(set.union(*rounds)) > 40  # other candidates each round


# Through a store.

POLICY = PolicyConfig(model="demo:absolute", device="cpu")
REFERENCE = PolicyRef(folder=str(resolve_model(POLICY)), digest="digest-of-the-demo")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    none = {"eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    return list(demo_samples("uniform", 2, DemoCounts(offline=4, online=30, **none)))


def collect(
    store: Store, given: ArtifactRef, before: ArtifactRef | None = None, *, seed: int = 0, **settings: Any
) -> ArtifactReader:
    """One round: the first where there is none before."""
    config = RolloutsConfig(
        **{
            "select": "mopps", "mopps_pool": 2, "temperature": 1.5, "prompts": 8, "group_size": 4, "batch_size": 4,
            "max_new_tokens": 8, **settings,
        }
    )  # fmt: skip
    inputs = {"samples": given} | ({"rollouts": before} if before else {})
    round_index = int(before.key.partition("/")[2]) + 1 if before else 0
    planned = plan(
        store, STAGES["rollouts"], config, inputs, {"policy": REFERENCE}, POLICY,
        seed=seed, round_index=round_index, rounds=3,
    )  # fmt: skip
    return store.reader(execute(store, planned, NullProgress()))


def asked(reader: ArtifactReader) -> list[str]:
    return [row["sample_id"] for row in reader.rows(columns=["sample_id"])]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("mopps"))


@pytest.fixture(scope="module")
def given(store: Store, samples: list[Sample]) -> ArtifactRef:
    return commit_rows(store, "samples", samples)


@pytest.fixture(scope="module")
def rounds(store: Store, given: ArtifactRef) -> list[ArtifactReader]:
    readers = [collect(store, given)]
    for _ in range(2):
        readers.append(collect(store, given, readers[-1].ref))
    return readers


def test_rounds_go_on_from_what_the_last_one_left(rounds: list[ArtifactReader], samples: list[Sample]) -> None:
    ids = [s.sample_id for s in samples if s.split == "online" and s.kind in CLOSED_KINDS]
    posterior: dict[str, tuple[float, float]] = {}
    for round_index, reader in enumerate(rounds):
        expected = picked(ids, posterior, prompts=8, pool=2, round_index=round_index)
        assert asked(reader) == expected
        posterior = learn(posterior, reader.rows(), 0.5)
        assert reader.json(FILE) == {one: list(counts) for one, counts in posterior.items()}
        for row in reader.rows():
            right = sum(one["verdict"] == "correct" for one in row["completions"])
            if round_index == 0:
                assert posterior[row["sample_id"]] == (1.0 + right, 1.0 + 4 - right)
    assert set(posterior) == {one for reader in rounds for one in asked(reader)}
    assert len(posterior) > 8
    assert len(set(posterior.values())) > 2


def test_what_is_known_decides_what_is_asked(rounds: list[ArtifactReader], samples: list[Sample]) -> None:
    ids = [s.sample_id for s in samples if s.split == "online" and s.kind in CLOSED_KINDS]
    without = [picked(ids, {}, prompts=8, pool=2, round_index=r) for r in range(3)]
    assert asked(rounds[0]) == without[0]
    assert [asked(reader) for reader in rounds[1:]] != without[1:]


def test_a_broken_round_goes_on_with_the_same_draw(
    rounds: list[ArtifactReader], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    given = commit_rows(store, "samples", samples[::-1])  # nor does the table's order matter
    first = collect(store, given)
    calls: list[int] = []
    real = Collector.collect

    def breaks(self: Collector, batch: Opened) -> Any:
        calls.append(len(batch.samples))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(Collector, "collect", breaks)
    with pytest.raises(KeyboardInterrupt):
        collect(store, given, first.ref, part_rows=4)
    resumed = collect(store, given, first.ref, part_rows=4)
    assert calls == [4, 4, 4]  # the first part was not made again
    assert [first.ref.content, resumed.ref.content] == [reader.ref.content for reader in rounds[:2]]


def test_a_round_whose_parts_are_all_done_still_says_what_it_learned(
    rounds: list[ArtifactReader], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mbpo_core.rollouts import mopps

    store = Store(tmp_path)
    given = commit_rows(store, "samples", samples)
    with monkeypatch.context() as broken:
        broken.setattr(mopps, "learn", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect(store, given)
    monkeypatch.setattr(Collector, "collect", lambda *arguments: pytest.fail("a part was made again"))
    assert collect(store, given).ref.content == rounds[0].ref.content


def test_seeds_give_equal_and_other_draws(
    store: Store, given: ArtifactRef, rounds: list[ArtifactReader], tmp_path: Path, samples: list[Sample]
) -> None:
    other = Store(tmp_path)
    again = collect(other, commit_rows(other, "samples", samples))
    assert again.ref.content == rounds[0].ref.content
    assert asked(collect(store, given, seed=1)) != asked(rounds[0])


def test_shuffled_rounds_leave_nothing_and_ask_as_ever(store: Store, given: ArtifactRef, samples: list[Sample]) -> None:
    ids = [s.sample_id for s in samples if s.split == "online" and s.kind in CLOSED_KINDS]
    reader = collect(store, given, select="shuffle")
    assert asked(reader) == [ids[position] for position in draw(ids, 8, 0, 0)]
    assert reader.manifest.files == []
    assert collect(store, given, select="shuffle", mopps_pool=5, mopps_decay=1.0).ref == reader.ref  # not its settings
    with pytest.raises(DataError, match=r"did not pick its prompts by mopps.*rollouts/0.*rollouts.select=mopps"):
        collect(store, given, reader.ref)


@pytest.mark.parametrize(("select", "read"), [("mopps", {"samples", "rollouts"}), ("shuffle", {"samples"})])
def test_the_task_hands_on_the_round_before(
    select: str, read: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.install(monkeypatch)
    run = Run(
        PipelineConfig.model_validate({"method": "mbpo", "rounds": 2, "rollouts": {"select": select}}), Store(tmp_path)
    )
    samples = run.stage("samples")
    first = collect_rollouts(run, samples, REFERENCE, None, 0)
    second = collect_rollouts(run, samples, REFERENCE, first, 1)
    assert first
    assert second
    inputs = run.store.reader(second).manifest.inputs
    assert set(inputs) == read
    assert inputs.get("rollouts", first) == first
