"""Filters and selection, which need no model."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mbpo_core.config import PairsConfig
from mbpo_core.pairs.filters import FILTERS, Scores, reason_against
from mbpo_core.pairs.selection import rank_pairs
from mbpo_core.stages import STAGES

NAN = float("nan")


def scores(**changes: Any) -> Scores:
    good = {
        "sample_id": "a", "question_kind": "short_text", "gain_chosen": 0.5, "gain_rejected": 0.1,
        "logprob_rejected": -1.0, "blind_logprob_chosen": -1.0, "blind_logprob_rejected": -1.2,
    }  # fmt: skip
    return Scores(**{**good, **changes})


CASES = [
    ({}, {}, None),
    ({"gain_chosen": 0.0, "gain_rejected": -1.0}, {}, "low_gain"),  # must exceed, not reach
    ({"gain_chosen": 0.01, "gain_rejected": -1.0}, {}, None),
    ({"gain_chosen": 0.3}, {"min_gain": 0.3}, "low_gain"),
    ({"gain_chosen": NAN}, {}, "low_gain"),
    ({"gain_chosen": -2.0, "gain_rejected": -3.0}, {"informative": False}, None),
    ({"gain_chosen": NAN}, {"informative": False}, "low_gain"),
    ({"gain_rejected": 0.4}, {}, "not_text_leaning"),  # margin 0.1 is not more than 0.1
    ({"gain_rejected": 0.39}, {}, None),
    ({"gain_rejected": 0.39}, {"gain_margin": 0.2}, "not_text_leaning"),
    ({"gain_rejected": 0.6}, {"text_leaning": False}, None),
    ({"gain_rejected": NAN}, {}, "not_text_leaning"),
    ({"blind_logprob_rejected": -1.5}, {}, None),  # at most 0.5 below
    ({"blind_logprob_rejected": -1.51}, {}, "not_text_leaning"),
    ({"blind_logprob_rejected": -1.51}, {"blind_slack": 1.0}, None),
    ({"blind_logprob_rejected": -1.51}, {"text_leaning": False}, None),
    ({"blind_logprob_rejected": -0.1}, {}, None),  # likelier than chosen: leans on text all the more
    ({"logprob_rejected": -3.0}, {}, "implausible"),  # must exceed
    ({"logprob_rejected": -2.99}, {}, None),
    ({"logprob_rejected": -5.0}, {"min_rejected_logprob": -6.0}, None),
    ({"logprob_rejected": -5.0}, {"plausible": False}, None),
    ({"logprob_rejected": NAN}, {}, "implausible"),
    ({"gain_chosen": -1.0, "logprob_rejected": -9.0}, {}, "low_gain"),  # the first filter speaks
]


@pytest.mark.parametrize(("changes", "settings", "reason"), CASES)
def test_filters(changes: dict[str, Any], settings: dict[str, Any], reason: str | None) -> None:
    against = reason_against(scores(**changes), PairsConfig(**settings))
    assert (against and against[0]) == reason
    if against:
        assert "nats/token" in against[1]


def test_details_carry_the_numbers() -> None:
    details = [check(scores(gain_chosen=-0.25, logprob_rejected=-4.0), PairsConfig()) for check in FILTERS.values()]
    assert details == [
        "gain of chosen -0.2500 nats/token, must exceed 0",
        "gain of chosen exceeds that of rejected by -0.3500 nats/token, must exceed 0.1",
        "log p(rejected) is -4.0000 nats/token, must exceed -3",
    ]
    assert set(FILTERS) < set(STAGES["pairs"].reasons)


def pool() -> list[Scores]:
    gains = {"yes_no": [5.0, 4.0, 3.0, 2.0], "short_text": [0.3, 0.2, 0.1], "numeric": [9.0]}
    return [
        scores(sample_id=f"{kind}-{i}", question_kind=kind, gain_chosen=gain)
        for kind, values in gains.items()
        for i, gain in enumerate(values)
    ]


def left_out(candidates: list[Scores], select: Any, share: float, seed: int) -> dict[str, str]:
    """sample_id -> detail of what is not kept."""
    ranking = rank_pairs(candidates, select, share, seed)
    details = [(c.sample_id, ranking.outside(number, c.question_kind)) for number, c in enumerate(candidates)]
    return {sample_id: detail for sample_id, detail in details if detail}


def kept(candidates: list[Scores], *arguments: Any) -> set[str]:
    return {c.sample_id for c in candidates} - left_out(candidates, *arguments).keys()


def test_the_share_is_taken_within_each_kind() -> None:
    """Ranked over all kinds, yes_no would swallow the set."""
    assert kept(pool(), "top", 0.5, 0) == {"yes_no-0", "yes_no-1", "short_text-0", "short_text-1", "numeric-0"}
    assert kept(pool(), "bottom", 0.5, 0) == {"yes_no-2", "yes_no-3", "short_text-1", "short_text-2", "numeric-0"}
    assert kept(pool(), "top", 0.01, 0) == {"yes_no-0", "short_text-0", "numeric-0"}  # rounded up
    assert len(kept(pool(), "all", 0.01, 0)) == len(kept(pool(), "top", 1.0, 0)) == 8
    assert left_out([], "top", 0.5, 0) == {}
    assert left_out(pool(), "top", 0.5, 0)["short_text-2"] == "rank 3 of 3 short_text pairs (top), the first 2 are kept"


def test_rows_that_a_filter_dropped_have_no_rank() -> None:
    rows: list[Scores | None] = [None, *pool()[:4], None, *pool()[4:], None]
    ranking = rank_pairs(rows, "top", 0.5, 0)
    assert ranking.ranks.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 1, 0]
    assert ranking.totals == {"yes_no": 4, "short_text": 3, "numeric": 1}
    nothing = rank_pairs([None, None], "top", 0.5, 0)
    assert [nothing.outside(number, "yes_no") for number in range(2)] == [None, None]


def test_ranks_equal_a_plain_sort_over_many_chunks() -> None:
    draw = random.Random(1)
    rows = [
        scores(sample_id=f"{draw.random():.12f}-é", question_kind=draw.choice("ab"), gain_chosen=draw.randrange(1, 40))
        for _ in range(9000)
    ]
    for select, sign in (("top", -1), ("bottom", 1)):
        ranks = rank_pairs(rows, select, 0.5, 0).ranks  # type: ignore[arg-type]
        for kind in "ab":
            plain = sorted(
                (n for n, row in enumerate(rows) if row.question_kind == kind),
                key=lambda n: (sign * rows[n].gain_chosen, rows[n].sample_id),
            )
            assert ranks[plain].tolist() == list(range(1, len(plain) + 1))


@pytest.mark.parametrize(
    ("share", "count", "expected"), [(0.1, 30, 3), (0.3, 10, 3), (0.7, 10, 7), (1 / 3, 9, 3), (0.5, 5, 3)]
)
def test_the_count_is_rounded_up_but_not_by_float_noise(share: float, count: int, expected: int) -> None:
    candidates = [scores(sample_id=f"{i}", gain_chosen=i) for i in range(count)]
    assert len(kept(candidates, "top", share, 0)) == expected


def test_ties_go_by_id_and_order_does_not_matter() -> None:
    equal = [scores(sample_id=name) for name in "dbca"]
    assert kept(equal, "top", 0.5, 0) == kept(equal, "bottom", 0.5, 0) == {"a", "b"}
    candidates = pool() + equal
    shuffled = random.Random(0).sample(candidates, len(candidates))
    for select in ("top", "bottom", "random"):
        assert kept(candidates, select, 0.5, 3) == kept(shuffled, select, 0.5, 3)


def test_random_depends_on_the_seed_and_not_on_gains() -> None:
    candidates = [scores(sample_id=f"{i}", gain_chosen=i) for i in range(200)]
    first = kept(candidates, "random", 0.5, 0)
    assert first == kept([scores(sample_id=c.sample_id) for c in candidates], "random", 0.5, 0)
    assert first != kept(candidates, "random", 0.5, 1)
    assert 60 < sum(int(name) for name in first) / len(first) < 140
    # The draw is per row: a larger share keeps what a smaller one kept.
    assert first < kept(candidates, "random", 0.8, 0)
