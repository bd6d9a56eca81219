"""Dropped rows: a closed set of reasons, and limits that stop a stage."""

from __future__ import annotations

import pytest

from mbpo_core.errors import DataError, StoreError, TooManyDropped
from mbpo_core.stage import StageSpec
from mbpo_core.store import Store
from tests.execution.conftest import make
from tests.execution.fakes import DRAWING


def test_too_many_unusable_rows_stop_the_stage_at_once(store: Store, computed: list[int]) -> None:
    with pytest.raises(TooManyDropped) as caught:
        make(store, DRAWING, count=100, bad_every=2, max_dropped_share=0.05)
    assert str(caught.value) == (
        "6 of 100 rows are unusable: unreadable_image 6 (s000: fake; s002: fake; s004: fake) (stage drawing); expected "
        "at most 0.05 of the rows (max_dropped_share). Mend the input, or raise drawing.max_dropped_share."
    )
    assert len(computed) == 12, "no further part was computed once the limit was certainly passed"


def test_filtered_rows_do_not_count_as_unusable(store: Store) -> None:
    reader = store.reader(make(store, DRAWING, faint_every=2, max_dropped_share=0.0))
    assert reader.manifest.dropped == {"faint": 5}


def test_exactly_the_allowed_share_passes(store: Store) -> None:
    assert store.reader(make(store, DRAWING, bad_every=5, max_dropped_share=0.2)).count() == 8
    with pytest.raises(TooManyDropped, match="2 of 10"):
        make(store, DRAWING, bad_every=5, max_dropped_share=0.19)


def test_the_limit_holds_over_adopted_parts_too(store: Store, computed: list[int]) -> None:
    for _ in range(2):
        with pytest.raises(TooManyDropped, match="1 of 10 rows"):
            make(store, DRAWING, bad_every=9, max_dropped_share=0.05)
    assert computed == [0, 1, 2, 3]


def test_no_row_left_says_why(store: Store) -> None:
    with pytest.raises(DataError, match=r"no row is left of 10: unreadable_image 10 \(s000: fake;.*loosen the filters"):
        make(store, DRAWING, bad_every=1, max_dropped_share=1.0)
    with pytest.raises(DataError, match=r"there is no input row \(stage drawing\)"):
        make(store, DRAWING, count=0)


def test_an_undeclared_reason_is_a_bug(store: Store) -> None:
    odd = StageSpec(**{**vars(DRAWING), "entry": "tests.execution.fakes:drop_oddly"})
    with pytest.raises(StoreError, match=r"unknown reason 'ugly' for dropping s000.*one of unreadable_image, faint"):
        make(store, odd)
