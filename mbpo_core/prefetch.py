"""The next items made ready by another thread while this one works on the current item."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class Ahead(Generic[Loaded]):
    """An iterator that has a thread of its own; see `ahead`. Leave it by `with`, or call `close`."""

    def __init__(self, steps: Iterator[Loaded], depth: int) -> None:
        self._steps, self._depth = steps, depth
        self._changed = threading.Condition()
        self._ready: deque[Loaded] = deque()
        self._failure: BaseException | None = None
        self._closed = self._ended = False
        self._thread = threading.Thread(target=self._work, name="mbpo-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Loaded]:
        return self

    def __next__(self) -> Loaded:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._closed)
            if self._ready and not self._closed:
                self._changed.notify_all()
                return self._ready.popleft()
            failure, self._failure = self._failure, None
        self.close()
        if failure is not None:
            raise failure
        raise StopIteration

    def __enter__(self) -> Ahead[Loaded]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was made ready and wait until the thread has ended: at most one item's work."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        failure: BaseException | None = None
        try:
            while self._has_room():
                self._put(next(self._steps))
        except StopIteration:
            pass
        except BaseException as error:  # whatever it is, it belongs to the thread that asked for the item
            failure = error
        with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait until fewer than `depth` items are ready; False if nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
            return not self._closed

    def _put(self, loaded: Loaded) -> None:
        with self._changed:
            self._ready.append(loaded)
            self._changed.notify_all()


def ahead(items: Iterable[Item], load: Callable[[Item], Loaded], depth: int = 2) -> Ahead[Loaded]:
    """`map(load, items)`, computed by one thread that stays at most `depth` items ahead.

        with ahead(paths, read) as contents:
            for content in contents: ...

    Results and their order are those of `map`; `items` is advanced by that thread too. Nothing is pickled. Memory
    holds at most `depth` results that nobody has taken yet. Torch's current device is a thread's own: `load` should
    leave tensors on the CPU.

    Args:
        items: what to load, in order; may be endless.
        load: makes one item ready; called in the other thread, one item after the other.
        depth: results that may wait, >= 1.

    Returns:
        An iterator, and a context manager that stops and joins the thread however the block is left. An exception of
        `load` or `items` is raised where its result would have come, after everything before it.
    """
    return Ahead(map(load, items), max(1, depth))
