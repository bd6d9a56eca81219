"""Prompts whose groups agree give way to stand-ins: which ones, how many, and the same after any interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import LaunchConfig, PolicyConfig, RolloutsConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.execution import execute, plan
from mbpo_core.models.policy import Policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.progress import NullProgress
from mbpo_core.records import CLOSED_KINDS, Image, RolloutGroup, Sample
from mbpo_core.rollouts.collecting import Collector, Opened
from mbpo_core.rollouts.drawing import draw
from mbpo_core.rollouts.mopps import FILE as POSTERIOR
from mbpo_core.rollouts.mopps import learn, pick
from mbpo_core.rollouts.redrawing import FILE, Draw, summary
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader
from tests.samples.helpers import commit_rows

IDS = [f"s{i}" for i in range(20)]


def test_stand_ins_lie_opposite_on_the_circle() -> None:
    whole = draw(IDS, 20, 0, 3)
    for r in range(5):
        drawn, spares = draw(IDS, 4, r, 3), draw(IDS, 4, r, 3, 6)
        assert spares[:4] == drawn
        assert len(set(spares)) == 10
        places = [(whole.index(position) - 4 * r) % 20 for position in spares[4:]]
        assert places == [9, 10, 11, 12, 13, 14]  # of 4 ... 19 the middle six
    assert len(draw(IDS, 4, 1, 3, 100)) == len(set(draw(IDS, 4, 1, 3, 100))) == 20
    assert draw(IDS, 30, 1, 3, 5) == draw(IDS, 20, 1, 3)  # nobody is left to stand in


def test_of_candidates_the_next_nearest_stand_in() -> None:
    posterior = {one: (1.0 + i % 7, 1.0 + i % 5) for i, one in enumerate(IDS)}
    settings: dict[str, Any] = {"prompts": 3, "pool": 4, "round_index": 1, "seed": 0}
    assert pick(IDS, posterior, **settings, spare=4)[:3] == pick(IDS, posterior, **settings)
    everyone = pick(IDS, posterior, **settings, spare=100)
    assert len(everyone) == len(set(everyone)) == 12  # the pool bounds them: four candidates a prompt
    assert everyone[:7] == pick(IDS, posterior, **settings, spare=4)


def test_every_prompt_has_stand_ins_of_its_own() -> None:
    drawn = Draw([10, 11, 12], [20, 21, 22, 23, 24])
    assert [list(drawn.stand_ins(place)) for place in range(3)] == [[20, 23], [21, 24], [22]]
    assert list(Draw([1, 2]).stand_ins(0)) == []


def test_counts_by_hand() -> None:
    rows = [(True, 0), (True, 1), (False, 2), (False, 0), (True, 0)]
    assert summary({"zero_variance": agrees, "stand_in": k} for agrees, k in rows) == {
        "asked": 5, "redrawn": 2, "agreed": 3, "mixed": 2,
    }  # fmt: skip


# Through a store.

POLICY = PolicyConfig(model="demo:absolute", device="cpu")
REFERENCE = PolicyRef(folder=str(resolve_model(POLICY)), digest="digest-of-the-demo")
PROMPTS, REDRAW = 8, 2
WARM = 1.7  # at which the base has some groups that agree and some that do not


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    none = {"eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    return list(demo_samples("uniform", 2, DemoCounts(offline=2, online=40, **none)))


def online(samples: list[Sample]) -> list[Sample]:
    return [one for one in samples if one.split == "online" and one.kind in CLOSED_KINDS]


def collect(
    store: Store, given: ArtifactRef, before: ArtifactRef | None = None, *, processes: int = 1, **settings: Any
) -> ArtifactReader:
    config = RolloutsConfig(
        **{"redraw": REDRAW, "temperature": WARM, "prompts": PROMPTS, "group_size": 4, "batch_size": 4,
           "max_new_tokens": 8, "max_dropped_share": 1.0, **settings}
    )  # fmt: skip
    round_index = int(before.key.partition("/")[2]) + 1 if before else 0
    planned = plan(
        store, STAGES["rollouts"], config, {"samples": given} | ({"rollouts": before} if before else {}),
        {"policy": REFERENCE}, POLICY, round_index=round_index, rounds=3, launch=LaunchConfig(processes=processes),
    )  # fmt: skip
    return store.reader(execute(store, planned, NullProgress()))


def groups(reader: ArtifactReader) -> list[RolloutGroup]:
    return [RolloutGroup.model_validate(row) for row in reader.rows()]


def chains(reader: ArtifactReader) -> list[list[RolloutGroup]]:
    """Each drawn prompt's group, followed by those of its stand-ins."""
    found: list[list[RolloutGroup]] = []
    for group in groups(reader):
        if group.stand_in == 0:
            found.append([])
        found[-1].append(group)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("redrawing"))


@pytest.fixture(scope="module")
def given(store: Store, samples: list[Sample]) -> ArtifactRef:
    return commit_rows(store, "samples", samples)


@pytest.fixture(scope="module")
def made(store: Store, given: ArtifactRef) -> ArtifactReader:
    return collect(store, given)


def test_a_prompt_gives_way_until_a_group_teaches_and_no_longer(
    made: ArtifactReader, samples: list[Sample], demo_policy: Policy
) -> None:
    pool = online(samples)
    ids = [sample.sample_id for sample in pool]
    positions = draw(ids, PROMPTS, 0, 0, PROMPTS * REDRAW)
    drawn = Draw(positions[:PROMPTS], positions[PROMPTS:])
    found = chains(made)
    assert len(found) == PROMPTS
    for place, chain in enumerate(found):
        order = [drawn.drawn[place], *drawn.stand_ins(place)]
        assert [group.sample_id for group in chain] == [ids[position] for position in order[: len(chain)]]
        assert [group.stand_in for group in chain] == list(range(len(chain)))
        assert all(group.zero_variance for group in chain[:-1])
        assert not chain[-1].zero_variance or len(chain) == 1 + REDRAW
    lengths = {len(chain) for chain in found}
    assert {1, 1 + REDRAW} <= lengths  # some needed nobody, some had all theirs
    config = RolloutsConfig(temperature=WARM, group_size=4, max_new_tokens=8)
    collector = Collector(demo_policy, "digest-of-the-demo", config, 0, 0)
    by_id = {sample.sample_id: sample for sample in pool}
    for group in [group for chain in found for group in chain][:6]:  # what is sampled belongs to the prompt alone
        (alone,) = collector.collect(collector.open_batch([by_id[group.sample_id]]))
        assert [one.token_ids for one in alone.completions] == [one.token_ids for one in group.completions]


def test_the_cost_is_counted_and_bounded(made: ArtifactReader) -> None:
    rows = groups(made)
    counts = made.json(FILE)
    assert counts["asked"] == len(rows) == len({group.sample_id for group in rows}) <= PROMPTS * (1 + REDRAW)
    assert counts["redrawn"] == len(rows) - PROMPTS > 0
    assert counts["agreed"] == sum(group.zero_variance for group in rows)
    assert counts["mixed"] == sum(not group.zero_variance for group in rows)


def test_without_stand_ins_the_drawn_prompts_are_the_same(
    store: Store, given: ArtifactRef, made: ArtifactReader
) -> None:
    plain = collect(store, given, redraw=0)
    assert [group.sample_id for group in groups(plain)] == [chain[0].sample_id for chain in chains(made)]
    assert all(group.stand_in is None for group in groups(plain))
    assert FILE not in {Path(file.path).name for file in plain.manifest.files}


def test_part_size_changes_nothing_and_batch_size_no_answer(
    made: ArtifactReader, samples: list[Sample], tmp_path: Path
) -> None:
    def answers(reader: ArtifactReader) -> list[Any]:
        return [
            (group.sample_id, group.stand_in, [one.token_ids for one in group.completions]) for group in groups(reader)
        ]

    parts, batches = Store(tmp_path / "parts"), Store(tmp_path / "batches")
    assert collect(parts, commit_rows(parts, "samples", samples), part_rows=4).ref.content == made.ref.content
    other = collect(batches, commit_rows(batches, "samples", samples), batch_size=3, part_rows=3)
    assert answers(other) == answers(made)  # log-probs differ in the last bits, as in any other batch


def test_an_interrupted_round_ends_as_if_nothing_had_happened(
    made: ArtifactReader, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second part, between a batch and its stand-ins."""
    store = Store(tmp_path)
    given = commit_rows(store, "samples", samples)
    calls: list[int] = []
    real, stop_at = Collector.collect, [0]

    def breaks(self: Collector, batch: Opened) -> Any:
        calls.append(len(batch.samples))
        if len(calls) == stop_at[0]:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(Collector, "collect", breaks)
    first_part = sum(1 for chain in chains(made)[:4] for _ in chain)
    passes = max(len(chain) for chain in chains(made)[:4])
    stop_at[0] = passes + 2  # the second part's first stand-ins
    with pytest.raises(KeyboardInterrupt):
        collect(store, given, part_rows=4)
    assert sum(calls[:passes]) == first_part
    calls.clear()
    stop_at[0] = 0
    resumed = collect(store, given, part_rows=4)
    assert sum(calls) == len(groups(made)) - first_part  # the first part was not made again
    assert resumed.ref.content == made.ref.content


def test_a_stand_in_that_cannot_be_asked_gives_way_to_the_next(
    made: ArtifactReader, samples: list[Sample], tmp_path: Path
) -> None:
    chain = next(one for one in chains(made) if len(one) == 1 + REDRAW)
    broken = chain[1].sample_id
    rows = [
        one.model_copy(update={"images": [Image(bytes=b"no picture")]}) if one.sample_id == broken else one
        for one in samples
    ]
    store = Store(tmp_path)
    reader = collect(store, commit_rows(store, "samples", rows))
    (other,) = [one for one in chains(reader) if one[0].sample_id == chain[0].sample_id]
    assert [group.sample_id for group in other] == [chain[0].sample_id, chain[2].sample_id]
    assert [group.stand_in for group in other] == [0, 2]
    assert [row["sample_id"] for row in reader.rows("dropped")] == [broken]


def test_stand_ins_count_in_what_is_known_of_them(store: Store, given: ArtifactRef, samples: list[Sample]) -> None:
    settings = {"select": "mopps", "mopps_pool": 4, "prompts": 6}
    first = collect(store, given, **settings)
    posterior = learn({}, first.rows(), 0.5)
    assert first.json(POSTERIOR) == {one: list(counts) for one, counts in posterior.items()}
    assert len(posterior) == first.json(FILE)["asked"] > 6
    second = collect(store, given, first.ref, **settings)
    ids = [sample.sample_id for sample in online(samples)]
    positions = pick(ids, posterior, prompts=6, pool=4, round_index=1, seed=0, spare=6 * REDRAW)
    assert [chain[0].sample_id for chain in chains(second)] == [ids[position] for position in positions[:6]]
    assert {group.sample_id for group in groups(second)} <= {ids[position] for position in positions}


@pytest.mark.slow
def test_two_processes_make_the_same_round(made: ArtifactReader, samples: list[Sample], tmp_path: Path) -> None:
    store = Store(tmp_path)
    again = collect(store, commit_rows(store, "samples", samples), processes=2, part_rows=4)
    assert len(again.manifest.parts) == 2
    assert again.ref.content == made.ref.content
    assert again.json(FILE) == made.json(FILE)
