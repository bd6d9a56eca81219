"""Worker processes: started, watched, and ended to the last one.

The parent writes a folder, `mbpo_core.worker` does the work in processes of its own. The parent passes progress on and
turns a failure back into the error it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mbpo_core.config import LaunchConfig
from mbpo_core.launching.hosts import choose_hosts, many_hosts
from mbpo_core.launching.relay import STALLED_S, Heart, Pulses, Relay, failure, told_error
from mbpo_core.launching.trees import TOKEN, Tree, new_tree
from mbpo_core.stage import Progress

TOGETHER = ("train",)
"""Tasks whose processes do the same work together, so that one of them tells how far all are."""

_POLL_S = 0.2
_GRACE_S = 5.0


class Supervisor:
    """`mbpo_core.stage.Workers` on this machine, or on those of the hostfile.

    Args:
        launch: how many processes, and how long they may take.
        devices: leased accelerators, for the record.
        environment: what the lease adds to the processes' environment.

    Raises:
        ConfigError: the hostfile has fewer slots than there are processes.
    """

    def __init__(
        self, launch: LaunchConfig, *, devices: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.processes = launch.processes
        self._launch, self._devices, self._environment = launch, devices, dict(environment or {})
        if "CUDA_VISIBLE_DEVICES" in self._environment:
            self._environment["MBPO_ACCELERATED"] = "1"  # a worker that sees no accelerator refuses the CPU
        self._many_hosts = many_hosts()
        if self._many_hosts:
            choose_hosts(self.processes)

    def run(self, task: str, folder: Path, progress: Progress) -> None:
        """Do a task in every process and wait for the last one; see `mbpo_core.stage.Workers`."""
        deadline = time.monotonic() + self._launch.timeout_s
        relay = Relay(folder, 1 if task in TOGETHER else self.processes, progress)
        pulses = Pulses(folder, self.processes)
        with self._started(task, folder) as process:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise failure(folder, f"the workers took longer than launch.timeout_s = {self._launch.timeout_s} s")
                if stalled := pulses.stalled():
                    ranks = ", ".join(map(str, stalled))
                    raise told_error(folder) or failure(folder, f"nothing was heard of rank {ranks} for {STALLED_S} s")
                relay.catch_up()
                time.sleep(_POLL_S)
            relay.catch_up()
            # A launcher for several machines may end well although a host did not.
            undone = [rank for rank in range(self.processes) if not (folder / f"done-{rank}").exists()]
            if process.returncode or undone:
                ended = f"the workers ended with code {process.returncode}"
                raise told_error(folder) or failure(folder, f"{ended}; unfinished: rank {', '.join(map(str, undone))}")

    @contextlib.contextmanager
    def _started(self, task: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The launcher in a session of its own; however the block is left, nobody of its tree is there afterwards."""
        command = [sys.executable, "-m", "mbpo_core.worker", "launch", task, str(folder), str(self.processes)]
        tree, heart, process = new_tree(self._devices), Heart(folder), None
        environment = {**os.environ, **self._environment, TOKEN: tree.token}
        try:
            tree.remember()
            heart.start()
            with (folder / "launcher.log").open("wb") as log:
                process = subprocess.Popen(
                    [*command, str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            yield process
        finally:
            try:
                heart.stop()
                if process is not None and process.poll() is None:
                    self._ask(process)
            finally:  # even where a second signal interrupts the asking
                _end(tree, process)

    def _ask(self, process: subprocess.Popen[bytes]) -> None:
        """Let the launcher end its workers itself."""
        if not self._many_hosts:
            # Torchrun puts every worker into a session of its own and passes this signal on.
            _signal_group(process.pid, signal.SIGTERM)
        # On several machines the workers have seen the heartbeat end. DeepSpeed's own answer to the signal, to kill
        # by name on every host, would meet other runs as well.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def _end(tree: Tree, process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    tree.kill()
    tree.forget()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
