"""Finding artifacts by key, stage or digest prefix; what is unknown or ambiguous is answered with candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbpo_core.errors import StoreError
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.search import Found, find, find_some, runs_like
from tests.execution.conftest import make
from tests.execution.fakes import DRAWING, STAGES


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", stages=STAGES)


@pytest.fixture
def ref(store: Store) -> ArtifactRef:
    made = make(store, DRAWING)
    for key in ("pairs", "training/0", "training/1"):
        store.run("r").point(key, made)
    return made


def test_keys_and_all_rounds_of_a_stage(store: Store, ref: ArtifactRef) -> None:
    assert find(store, "pairs", "r") == [Found("pairs", "drawing", ref.digest)]
    assert [found.key for found in find(store, "training", "r")] == ["training/0", "training/1"]
    assert [found.key for found in find(store, "training/1", "r")] == ["training/1"]
    assert find(store, "pairs") == find(store, "pairs", "nobody") == []


def test_a_digest_prefix_needs_no_run(store: Store, ref: ArtifactRef) -> None:
    for length in (6, 12, 64):
        assert find(store, ref.digest[:length]) == [Found("drawing", "drawing", ref.digest)]
    assert find(store, ref.digest[:5]) == []
    assert find(store, ref.digest[:6] + "zz") == []


def test_what_is_not_committed_is_not_found(store: Store, ref: ArtifactRef) -> None:
    store.files.remove(f"{store.base('drawing', ref.digest)}/manifest.json")
    assert find(store, ref.digest) == []


def test_an_ambiguous_prefix_names_the_candidates(store: Store, ref: ArtifactRef) -> None:
    twin = ref.digest[:8] + "0" * 56
    store.files.write(f"{store.base('answers', twin)}/manifest.json", b"{}")
    with pytest.raises(StoreError, match="2 digests begin with") as refused:
        find(store, ref.digest[:7])
    for words in (f"drawing {ref.digest[:13]}", f"answers {twin[:13]}", "more digits"):
        assert words in str(refused.value)
    assert find(store, twin) == [Found("answers", "answers", twin)]


def test_an_unknown_word_names_what_is_like_it(store: Store, ref: ArtifactRef) -> None:
    with pytest.raises(StoreError, match="run 'r' has training/0, training/1"):
        find_some(store, "trainin/0", "r")
    with pytest.raises(StoreError, match="known runs: r"):
        find_some(store, "pairs")


def test_of_many_runs_the_nearest_are_named_and_the_others_counted(store: Store, ref: ArtifactRef) -> None:
    for number in range(1, 21):
        store.run(f"night-{number:02}").point("drawing", ref)
    assert runs_like(store, "nigth-17").startswith("night-17, ")
    assert runs_like(store, "nigth-17").endswith(" and 16 more")
    assert runs_like(store, None) == "night-01, night-02, night-03, night-04, night-05 and 16 more"
