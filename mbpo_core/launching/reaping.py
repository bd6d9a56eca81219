"""Nobody is left behind: processes that end with the one that started them, and trees whose supervisor is gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from mbpo_core.launching.trees import trees

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.5
_ORPHANED_S = 5.0
"""Time that `on_orphaned` has."""


def reap() -> list[int]:
    """Kill every process whose supervisor is gone, and forget its tree.

    Anyone may call it at any time: trees with a live supervisor, and those of other users, are left alone.

    Returns:
        The numbers of the killed processes.
    """
    killed = []
    for tree in trees():
        if tree.orphaned():
            killed += tree.kill()
            tree.forget()
    return killed


def end_own_trees() -> list[int]:
    """Kill every tree that this very process watches over; returns the processes' numbers."""
    killed = []
    for tree in trees():
        if tree.supervisor == os.getpid() and not tree.orphaned():
            killed += tree.kill()
            tree.forget()
    return killed


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends; elsewhere the launcher's signals must do.

    Args:
        parent: who started this process, in case it has ended already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def follow_parent(on_orphaned: Callable[[], None]) -> threading.Thread:
    """End this process, and the trees it watches over, within about a second after the one that started it.

    A thread looks, because Linux's own signal is tied to the thread that started us, which may end long before its
    process does.

    Args:
        on_orphaned: called first, in a thread, and not waited for longer than 5 s; what it raises is ignored.
    """
    thread = threading.Thread(target=_follow, args=(os.getppid(), on_orphaned), name="mbpo-parent", daemon=True)
    thread.start()
    return thread


def insist(number: signal.Signals, patience_s: float = 10.0) -> None:
    """Let a signal end this process and the trees it watches over, though the exception it raises gets lost.

    Python drops an exception that a handler raises inside a destructor or a weak reference's callback, and the work
    would go on until somebody kills the process. The handler stays what it is, because Prefect looks for its own: the
    interpreter also tells a file descriptor of every signal. To be called in the main thread.

    Args:
        patience_s: time that the handler has, seconds.
    """
    told, telling = socket.socketpair()
    telling.setblocking(False)
    if (before := signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)) != -1:
        signal.set_wakeup_fd(before)  # somebody else listens there
        return
    _LISTENING.extend((told, telling))
    threading.Thread(target=_end_after, args=(told, number, patience_s), name="mbpo-insist", daemon=True).start()


_LISTENING: list[socket.socket] = []  # open as long as this process lives


def _end_after(told: socket.socket, number: signal.Signals, patience_s: float) -> None:
    while number not in told.recv(64):
        pass
    time.sleep(patience_s)
    try:
        end_own_trees()
    finally:
        os._exit(1)


def _follow(parent: int, on_orphaned: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)

    def last_words() -> None:
        with contextlib.suppress(BaseException):
            on_orphaned()

    speaking = threading.Thread(target=last_words, daemon=True)
    speaking.start()
    speaking.join(_ORPHANED_S)
    try:
        end_own_trees()
    finally:
        os._exit(1)
