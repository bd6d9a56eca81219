"""Free-form mathematics (kind `math`): equal as expressions, by math-verify in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from mbpo_core.errors import ConfigError, VerifierError
from mbpo_core.verifiers.judgement import Judgement
from mbpo_core.verifiers.math_process import CPU_LIMIT_S, ask
from mbpo_core.verifiers.rules import PLAIN, Rules

NAME, VERSION = "math", 1

_EASY = "0"  # a reference that cannot be compared with it is of no use
_TOO_MUCH = f"takes more than {CPU_LIMIT_S} s of processor time, or more memory than the process may have"


def require() -> None:
    """Check that math-verify is there.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("math_verify") is None:
        raise ConfigError(
            "questions of kind math need the package math-verify, which is not installed",
            remedy="Install mbpo[math], or leave these questions out.",
        )


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The one expression a text gives, as sympy writes it, or None; see `math_worker.read`.

    Raises:
        ConfigError: math-verify is not installed.
    """
    require()
    told = ask(text)
    return None if told is None else told["extracted"]


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Equal as expressions, sets, intervals or equations; LaTeX, or plain arithmetic.

    What takes more than CPU_LIMIT_S of processor time is unparsed.

    Raises:
        ConfigError: math-verify is not installed.
        VerifierError: the reference answer does not give exactly one expression, or takes too long by itself.
    """
    require()
    told = ask(text, answer)
    gold = ask(_EASY, answer) if told is None and text != _EASY else told  # which of the two was too much?
    if gold is None or gold["reference"] is None:
        raise VerifierError(
            f"math cannot read the reference answer {answer!r:.120}: {gold['reference_reason'] if gold else _TOO_MUCH}",
            expected="one expression in LaTeX, e.g. $\\frac{1}{2}$ or \\boxed{x^2}, or plain arithmetic",
            remedy="Correct the answer or the question's kind.",
        )
    if told is None:
        return Judgement("unparsed", None, _TOO_MUCH)
    shown, reference = told["extracted"], gold["reference"]
    if shown is None:
        return Judgement("unparsed", None, told["reason"])
    if told["equal"]:
        return Judgement("correct", shown, f"gives {shown}, as the reference answer")
    return Judgement("wrong", shown, f"gives {shown}, but the reference answer is {reference}")
