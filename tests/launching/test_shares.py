"""A stage's parts dealt out to processes: the same artifact, whoever made which part."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbpo_core.config import LaunchConfig, PolicyConfig
from mbpo_core.errors import ConfigError, StoreError, WorkerFailed
from mbpo_core.execution import execute, plan
from mbpo_core.store import Store
from mbpo_core.store.attempts import Leftovers, Share, ShareDone, attempts, new_attempt
from mbpo_core.store.writer import ArtifactWriter
from tests.execution.conftest import make
from tests.execution.fakes import COMPUTED, STAGES, DrawingConfig, sample
from tests.launching.conftest import SHARED_ANSWERS, SHARED_DRAWING, Recorder, tree_members

ONE, TWO = LaunchConfig(launcher="workers"), LaunchConfig(processes=2)


def test_two_processes_make_what_one_does(store: Store, node_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPO_DEVICES", "fake:0,fake:1")
    settings = {"part_rows": 3, "bad_every": 5, "count": 20}
    inline = Store("memory://inline", stages=STAGES)
    drawn = make(inline, SHARED_DRAWING, **settings)
    answered = make(inline, SHARED_ANSWERS, {"samples": drawn}, part_rows=3)

    progress = Recorder()
    accelerated = plan(
        store, SHARED_DRAWING, DrawingConfig(**settings), {}, policy_config=PolicyConfig(device="cuda"), launch=TWO
    )
    ref = execute(store, accelerated, progress, spec=SHARED_DRAWING)
    manifest = store.reader(ref).manifest
    assert ref.content == drawn.content
    assert manifest.dropped == inline.reader(drawn).manifest.dropped
    assert (progress.started, progress.done) == ([("drawing", 20)], 20)
    assert manifest.accelerator_seconds == pytest.approx(2 * manifest.seconds)
    # Selection and summaries need all parts, and are made once.
    again = make(store, SHARED_ANSWERS, {"samples": ref}, part_rows=3, launch=TWO)
    assert again.content == answered.content
    for made in (ref, again):
        assert attempts(store.files, store.base(made.stage, made.digest)) == [store.reader(made).manifest.attempt]
    assert tree_members(node_folder) == []
    assert list((node_folder / "trees").iterdir()) == []


@pytest.fixture
def computed() -> list[int]:
    """Input indices that this process computed in this test."""
    COMPUTED.clear()
    return COMPUTED


def test_a_killed_rank_fails_the_stage_and_costs_only_its_part(
    store: Store, node_folder: Path, computed: list[int]
) -> None:
    settings = {"part_rows": 2, "count": 12}
    with pytest.raises(WorkerFailed, match=r"unfinished: rank .*1"):
        make(store, SHARED_DRAWING, **settings, die_at=6, launch=TWO)  # part 3, the second of rank 1
    assert tree_members(node_folder) == []
    planned = plan(store, SHARED_DRAWING, DrawingConfig(**settings), {})
    assert planned.status == "resumes"
    kept = planned.parts_done
    assert 1 <= kept <= 4, "part 1 of rank 1, and whatever rank 0 had done"
    progress = Recorder()
    ref = execute(store, planned, progress, spec=SHARED_DRAWING)
    assert len(computed) == progress.done == 12 - 2 * kept
    assert (progress.started, progress.older) == ([("drawing", 12)], 2 * kept)
    assert ref.content == make(Store("memory://unharmed", stages=STAGES), SHARED_DRAWING, **settings).content


@pytest.mark.slow
def test_an_error_of_ours_comes_through_and_a_forced_rerun_makes_all_anew(store: Store) -> None:
    settings = {"part_rows": 2, "count": 8, "noisy": True}
    with pytest.raises(StoreError, match="asked to fail at 6"):
        make(store, SHARED_DRAWING, **settings, fail_at=6, launch=ONE)
    first = make(store, SHARED_DRAWING, **settings, launch=ONE)
    forced = make(store, SHARED_DRAWING, **settings, launch=ONE, force=True)
    assert (forced.digest, store.reader(forced).count()) == (first.digest, 8)
    assert "came out different" in store.reader(forced).manifest.warnings[0]


def test_a_share_has_only_its_parts(store: Store) -> None:
    """Without processes: what the writer hands out, and what is put together."""
    config = DrawingConfig(part_rows=2, count=10)
    planned = plan(store, SHARED_DRAWING, config, {})
    place, names = store.folder("drawing", planned.digest), [new_attempt() for _ in range(3)]
    made = []
    for index, name in enumerate(names):
        leftovers = Leftovers(place, "code")
        writer = ArtifactWriter(
            place, SHARED_DRAWING, config=config, digest="d", code="code", leftovers=leftovers,
            share=Share(index, 3, name),
        )  # fmt: skip
        for part in writer.parts(10, 2):
            made.append((index, part.index))
            part.finish([sample(number) for number in range(part.start, part.stop)])
        assert len(writer.finished()) == len(made), "its own, and those of the shares before"
        with pytest.raises(ShareDone):
            writer.reader("part")
    assert made == [(0, 0), (0, 3), (1, 1), (1, 4), (2, 2)]
    again = ArtifactWriter(
        place, SHARED_DRAWING, config=config, digest="d", code="code", leftovers=Leftovers(place, "code"),
        share=Share(0, 2, new_attempt()),
    )  # fmt: skip
    assert list(again.parts(10, 2)) == [], "what a share before has finished is not made again"
    assert sum(map(len, again.finished())) == 10
    only = ArtifactWriter(
        place, SHARED_DRAWING, config=config, digest="d", code="code", leftovers=Leftovers(place, "code", names[:1])
    )
    assert [part.index for part in only.parts(10, 2)] == [1, 2, 4]
    assert only.finished() == [range(0, 2), range(6, 8)]


def test_workers_cannot_see_a_store_in_memory(node_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"store in this process's memory .*inline"):
        make(Store("memory://hidden", stages=STAGES), SHARED_DRAWING, launch=TWO)
    assert not (node_folder / "trees").exists()
