"""Conditional writes and the lock on them, on a stand-in for an S3 client; tests/service/test_s3.py has a server."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from typing import Any

import pytest

from mbpo_core.errors import StoreError
from mbpo_core.store import remote_lock
from mbpo_core.store.conditional import ConditionalWrites
from mbpo_core.store.remote_lock import RemoteLock


class Answered(Exception):
    """What botocore raises; s3fs keeps it as the cause."""

    def __init__(self, code: str) -> None:
        self.response = {"Error": {"Code": code}}


def answered(code: str) -> OSError:
    error = OSError(errno.EIO, code)
    error.__cause__ = Answered(code)
    return error


class FakeS3:
    """Objects in a dict, with the calls of s3fs that matter here."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.trouble: list[OSError] = []  # answers to the next writes
        self.lose_answers = 0  # so many writes are done, and then answered as if sent a second time
        self.honest = True
        self._one = threading.Lock()

    def pipe_file(self, place: str, data: bytes, mode: str = "overwrite", IfMatch: str = "") -> None:
        with self._one:
            self.puts += 1
            if self.trouble:
                raise self.trouble.pop(0)
            if self.honest and mode == "create" and place in self.objects:
                raise FileExistsError(place)
            if IfMatch and place not in self.objects:
                raise FileNotFoundError(place)
            if IfMatch and self.info(place)["ETag"] != IfMatch:
                raise answered("PreconditionFailed")
            self.objects[place] = data
            if self.lose_answers:
                self.lose_answers -= 1
                raise FileExistsError(place)

    def cat_file(self, place: str) -> bytes:
        if place not in self.objects:
            raise FileNotFoundError(place)
        return self.objects[place]

    def info(self, place: str) -> dict[str, Any]:
        return {"ETag": f'"{hashlib.md5(self.cat_file(place)).hexdigest()}"'}

    def rm_file(self, place: str) -> None:
        self.objects.pop(place, None)


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def writes(s3: FakeS3) -> ConditionalWrites:
    return ConditionalWrites(s3, "s3://bucket")


def test_what_is_there_is_never_replaced_by_create(s3: FakeS3, writes: ConditionalWrites) -> None:
    assert writes.create("b/a", b"one")
    assert not writes.create("b/a", b"two")
    assert s3.objects == {"b/a": b"one"}


def test_a_server_is_asked_once_whether_it_refuses(s3: FakeS3, writes: ConditionalWrites) -> None:
    for number in range(5):
        assert writes.create(f"b/{number}", b"")
    assert s3.puts == 6
    s3.honest = False
    with pytest.raises(StoreError, match="replaces objects that it is asked to create only if absent"):
        ConditionalWrites(s3, "s3://bucket").create("b/lease.json", b"")
    assert "b/lease.json" not in s3.objects


def test_a_lost_answer_is_no_refusal(s3: FakeS3, writes: ConditionalWrites) -> None:
    s3.lose_answers = 1
    assert writes.create("b/a", b"one")
    s3.lose_answers = 1
    assert writes.replace("b/a", b"two", writes.tag("b/a"))
    assert s3.objects == {"b/a": b"two"}


def test_s3_asks_to_try_again(s3: FakeS3, writes: ConditionalWrites) -> None:
    s3.trouble = [answered("ConditionalRequestConflict")] * 2
    assert writes.create("b/a", b"one")
    s3.trouble = [answered("SlowDown")]
    with pytest.raises(OSError, match="SlowDown"):
        writes.create("b/b", b"one")


def test_only_what_was_seen_is_replaced(s3: FakeS3, writes: ConditionalWrites) -> None:
    assert not writes.replace("b/a", b"two", '"gone"')
    writes.create("b/a", b"one")
    seen = writes.tag("b/a")
    s3.objects["b/a"] = b"by another"
    assert not writes.replace("b/a", b"two", seen)
    assert s3.objects == {"b/a": b"by another"}


def lock(s3: FakeS3) -> RemoteLock:
    """As another process would have it."""
    return RemoteLock(s3, ConditionalWrites(s3, "s3://bucket"), "b/lock")


def test_one_at_a_time(s3: FakeS3) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        mine = lock(s3)
        mine.take()
        inside.append(number)
        most.append(len(inside))
        time.sleep(0.01)
        inside.remove(number)
        mine.give_back()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert s3.objects == {}


def test_of_those_who_wait_for_a_dead_process_one_follows(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(s3).take()  # and is never given back
    monkeypatch.setattr(remote_lock, "STALE_S", 0.2)
    test_one_at_a_time(s3)


def test_who_was_stopped_for_long_leaves_the_lock_to_its_taker(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, next_one = lock(s3), lock(s3)
    slow.take()
    monkeypatch.setattr(remote_lock, "STALE_S", 0.1)
    next_one.take()
    held = dict(s3.objects)
    slow.give_back()
    assert s3.objects == held
    next_one.give_back()
    slow.give_back()
    assert s3.objects == {}


def test_it_does_not_wait_for_ever(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(s3).take()
    monkeypatch.setattr(remote_lock, "_WAIT_S", 0.1)
    with pytest.raises(StoreError, match=r"have kept the store's lock.*s3://b/lock"):
        lock(s3).take()
