"""The process behind kind `math`: it is killed in time, started anew, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from mbpo_core.errors import ConfigError, VerifierError
from mbpo_core.verifiers import math_process, mathematics
from mbpo_core.verifiers.math_worker import boxed
from mbpo_core.verifiers.registry import extract, require, require_answer, verify

TOWER = "$9^{9^{9^{9}}}$"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_process, "CPU_LIMIT_S", 1)


def workers() -> list[int]:
    """This process's own, zombies among them."""
    children = psutil.Process().children()
    return [
        child.pid
        for child in children
        if child.status() == psutil.STATUS_ZOMBIE or "math_worker" in " ".join(child.cmdline())
    ]


def test_what_hangs_is_unparsed_in_time_and_the_next_answer_is_judged() -> None:
    assert verify("math", "$3$", "3").verdict == "correct"
    (before,) = workers()
    used = os.times().children_user
    judgement = verify("math", TOWER, "3")
    assert (judgement.verdict, judgement.extracted) == ("unparsed", None)
    assert "processor time" in judgement.reason
    assert os.times().children_user - used < 6  # seconds: the limit, a whole second more, and reading it once again
    assert verify("math", "$3$", "3").verdict == "correct"
    (after,) = workers()
    assert after != before


def test_a_reference_that_hangs_is_an_error() -> None:
    """Before it is used: it equals itself at a glance, and hangs beside anything else."""
    with pytest.raises(VerifierError, match=r"cannot read the reference answer.*processor time"):
        require_answer("math", TOWER)


def test_one_process_serves_all_threads() -> None:
    found: list[str | None] = []

    def read(text: str) -> None:
        found.append(extract("math", text))

    threads = [threading.Thread(target=read, args=(f"${i}$",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == [str(i) for i in range(8)]
    assert len(workers()) == 1


def test_a_killed_worker_is_replaced() -> None:
    assert extract("math", "$3$") == "3"
    (before,) = workers()
    os.kill(before, signal.SIGKILL)
    time.sleep(0.2)
    assert extract("math", "$4$") == "4"
    assert before not in workers()


def test_an_interrupted_request_leaves_no_reply_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    assert extract("math", "$3$") == "3"
    with monkeypatch.context() as patched:
        patched.setattr(math_process._Worker, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract("math", "$4$")
    assert extract("math", "$5$") == "5"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{3}", ["3"]),
        ("so \\boxed{\\frac{1}{2}} or \\fbox{ 4 }.", ["\\frac{1}{2}", "4"]),
        ("\\boxed{\\boxed{3}}", ["\\boxed{3}"]),
        ("\\boxed{\\{1, 2\\}}", ["\\{1, 2\\}"]),
        ("\\boxed{\\left\\{1}", ["\\left\\{1"]),
        ("} \\boxed{3} }", ["3"]),
        ("\\boxed{3 and \\boxed{4}", ["4"]),
        ("\\boxed{}", [""]),
        ("\\boxed{" * 2000, []),
        ("\\boxed{" * 2000 + "}" * 2000, ["\\boxed{" * 1999 + "}" * 1999]),
    ],
    ids=range(10),
)
def test_boxes(text: str, expected: list[str]) -> None:
    start = time.process_time()
    assert boxed(text) == expected
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text", ["$10^{5000}$", "$\\frac{1}{0}$", "$" + "(" * 3000 + "1" + ")" * 3000 + "$"], ids=range(3)
)
def test_what_the_library_stumbles_over_is_a_verdict(text: str) -> None:
    judgement = verify("math", text, "3")
    assert judgement.verdict in ("unparsed", "wrong")
    assert judgement.reason


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_worker_ends_with_its_process(ending: str) -> None:
    """However that ends: by itself, or killed."""
    script = f"""
        import os, signal
        from mbpo_core.verifiers import math_process
        from mbpo_core.verifiers.registry import extract
        extract("math", "$3$")
        print(math_process._running[0]._process.pid, flush=True)
        {ending}
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    pid = int(run.stdout)
    for _ in range(50):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail(f"worker {pid} is still there")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "find_spec", lambda name: None)
    require(["yes_no", "box"])
    for call in (lambda: require(["yes_no", "math"]), lambda: verify("math", "3", "3"), lambda: extract("math", "3")):
        with pytest.raises(ConfigError, match=r"math-verify.*not installed\. Install mbpo\[math\]"):
            call()
