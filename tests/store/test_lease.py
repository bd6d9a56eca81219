"""Leases: one live worker at a time, and dead ones do not stand in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from mbpo_core.errors import LeaseHeld
from mbpo_core.store.files import Files
from mbpo_core.store.lease import Lease, machine, process_started, read_lease

PATH = "a/lease.json"


def _someone(files: Files, **changes: Any) -> None:
    now = time.time()
    info = {
        "token": "other",
        "holder": "someone@far pid 7",
        "machine": "far",
        "pid": 7,
        "started": "1",
        "heartbeat": now - 5,
        "expires": now + 60,
    }
    files.write(PATH, json.dumps(info | changes).encode())


def test_a_lease_is_held_and_given_back(files: Files) -> None:
    with Lease(files, PATH) as lease:
        held = read_lease(files, PATH)
        assert held is not None
        assert held.live()
        assert lease.mine()
        assert lease.holder() == held
        with pytest.raises(LeaseHeld, match=rf"pid {os.getpid()} is writing this artifact, last heard of 0 s ago"):
            Lease(files, PATH).__enter__()
    assert lease.holder() is None
    with Lease(files, PATH):
        pass


def test_a_live_worker_elsewhere_is_named(files: Files) -> None:
    _someone(files)
    held = Lease(files, PATH).holder()
    assert held is not None
    assert held.holder == "someone@far pid 7"
    assert 5 <= held.silent_s < 60  # and how long this test took
    with pytest.raises(LeaseHeld, match=r"someone@far pid 7 is writing this artifact, last heard of \d+ s ago"):
        Lease(files, PATH).__enter__()


def test_an_expired_lease_is_taken_over(files: Files) -> None:
    _someone(files, expires=time.time() - 1)
    with Lease(files, PATH) as lease:
        assert lease.mine()


def test_a_dead_process_of_this_machine_is_taken_over(files: Files) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    started = process_started(ended.pid)
    ended.wait()
    _someone(files, machine=machine(), pid=ended.pid, started=started)
    with Lease(files, PATH) as lease:
        assert lease.mine()


def test_a_reused_process_number_is_not_the_holder(files: Files) -> None:
    _someone(files, machine=machine(), pid=os.getpid(), started="1")
    with Lease(files, PATH) as lease:
        assert lease.mine()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        deadline = time.monotonic() + 20
        while process_started(child.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process_started(child.pid) is None, "it has ended, though nobody has waited for it"
    finally:
        child.wait()


def test_an_unreadable_lease_is_taken_over(files: Files) -> None:
    files.write(PATH, b"{")
    with Lease(files, PATH) as lease:
        assert lease.mine()


def test_the_heartbeat_keeps_it_alive(files: Files) -> None:
    with Lease(files, PATH, expiry_s=0.6, heartbeat_s=0.05) as lease:
        first = read_lease(files, PATH)
        time.sleep(0.9)
        later = read_lease(files, PATH)
        assert first is not None
        assert later is not None
        assert later.live()
        assert later.expires > first.expires
        assert lease.mine()


def test_a_lost_lease_is_left_to_its_new_holder(files: Files) -> None:
    with Lease(files, PATH, heartbeat_s=0.02) as lease:
        _someone(files)
        time.sleep(0.1)
        with pytest.raises(LeaseHeld, match="someone@far"):
            lease.check()
    held = read_lease(files, PATH)
    assert held is not None
    assert held.token == "other"


def test_of_many_takers_one_wins(files: Files) -> None:
    _someone(files, expires=time.time() - 1)
    begin, end, won, refused = threading.Barrier(8), threading.Barrier(8), [], []

    def take(number: int) -> None:
        begin.wait()
        try:
            with Lease(files, PATH):
                won.append(number)
                end.wait()
        except LeaseHeld:
            refused.append(number)
            end.wait()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
