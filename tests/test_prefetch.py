"""Working ahead changes when things are computed, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from mbpo_core.prefetch import ahead


def threads() -> int:
    return sum(thread.name == "mbpo-ahead" for thread in threading.enumerate())


def settle(condition: object) -> None:
    """Wait until a condition holds that another thread brings about."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.001)
    assert condition()  # type: ignore[operator]


def test_results_come_in_order_from_one_other_thread() -> None:
    seen: set[int] = set()

    def load(item: int) -> int:
        seen.add(threading.get_ident())
        return item * item

    with ahead(range(50), load) as results:
        assert list(results) == [item * item for item in range(50)]
    assert len(seen) == 1
    assert seen != {threading.get_ident()}
    assert threads() == 0


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_it_stays_at_most_depth_items_ahead(depth: int) -> None:
    started: list[int] = []

    def load(item: int) -> int:
        started.append(item)
        return item

    with ahead(count(), load, depth) as results:  # endless: only what is wanted is computed
        for taken in range(1, 8):
            assert next(results) == taken - 1
            settle(lambda taken=taken: len(started) == taken + depth)
            time.sleep(0.005)
            assert len(started) == taken + depth
    assert threads() == 0


def test_the_next_item_is_loaded_while_this_one_is_used() -> None:
    begun = threading.Event()

    def load(item: int) -> int:
        if item == 1:
            begun.set()
        return item

    with ahead(range(2), load) as results:
        assert next(results) == 0
        assert begun.wait(10)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_error_comes_where_its_item_would_have_come(depth: int) -> None:
    def load(item: int) -> int:
        if item == 3:
            raise ValueError("item 3")
        return item

    with ahead(range(9), load, depth) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="item 3"):
            next(results)
        assert list(results) == []
    assert threads() == 0


def test_an_error_of_the_items_themselves_is_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("source")

    with ahead(items(), str) as results:
        assert next(results) == "1"
        with pytest.raises(KeyError, match="source"):
            next(results)


def test_leaving_early_stops_the_thread() -> None:
    def use(results: Iterator[str]) -> None:
        assert next(results) == "0"
        raise RuntimeError("consumer")

    with pytest.raises(RuntimeError, match="consumer"), ahead(count(), str) as results:
        use(results)
    assert threads() == 0
    results = ahead(count(), str)
    assert next(results) == "0"
    results.close()
    results.close()
    assert threads() == 0
    assert list(results) == []


def test_nothing_to_load() -> None:
    with ahead([], str) as results:
        assert list(results) == []
    assert threads() == 0
