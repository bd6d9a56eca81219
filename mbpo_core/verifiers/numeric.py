"""Numbers: equal as rational numbers, in whatever way and unit they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import Judgement
from mbpo_core.verifiers.numerals import Number, numbers
from mbpo_core.verifiers.rules import PLAIN, Rules
from mbpo_core.verifiers.units import PERCENT

NAME, VERSION = "numeric", 2  # 2: units that convert, mixed and spelled fractions, powers of ten, tolerance

_MARGIN = re.compile(r"(?:±|\+/-|\+-)\s?")


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The one number a text gives, in digits with its unit ("3", "0.5", "25%"), or None."""
    found = _single(text)
    return None if isinstance(found, str) else found.shown()


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Equal as rational numbers, units converted where that is exact (1.5 m = 150 cm, 20 °C = 68 °F).

    Where only one of the two names a unit, the numbers must be equal as written. Percent is a unit: 50% is 50, and
    not 0.5; but a fraction is a share of 1, and 1/2 is 50%.

    A number is also right within `rules.tolerance` of the reference, relatively, or within the margin that the
    reference states ("9.8 ± 0.1").

    Raises:
        VerifierError: the reference answer does not give exactly one number.
    """
    stated, margin = _with_margin(answer)
    gold = _single(stated)
    if isinstance(gold, str) or margin is None:
        raise VerifierError(
            f"numeric cannot read the reference answer {answer!r:.120}: {gold if isinstance(gold, str) else 'margin'}",
            expected="one number",
            remedy="Correct the answer or the question's kind.",
        )
    found = _single(text)
    if isinstance(found, str):
        return Judgement("unparsed", None, found)
    shown, about = found.shown(), f"gives {found.shown()}"
    values = _comparable(found, gold, margin)
    if values is None:
        return Judgement("wrong", shown, f"{about}, but the reference answer is in {_symbol(gold)}")
    value, wanted, absolute = values
    if value == wanted:
        return Judgement("correct", shown, f"{about}, as the reference answer")
    allowed = max(absolute, abs(wanted) * Fraction(str(rules.tolerance)))
    if abs(value - wanted) <= allowed:
        return Judgement("correct", shown, f"{about}, within the tolerance of the reference answer {gold.shown()}")
    return Judgement("wrong", shown, f"{about}, but the reference answer is {gold.shown()}")


def _comparable(found: Number, gold: Number, margin: Fraction) -> tuple[Fraction, Fraction, Fraction] | None:
    """Both numbers and the margin in one unit; None where they measure different things."""
    assert found.value is not None
    assert gold.value is not None
    if found.unit and gold.unit:
        if found.unit.dimension != gold.unit.dimension:
            return None
        return found.unit.in_base(found.value), gold.unit.in_base(gold.value), margin * gold.unit.factor
    if found.unit is PERCENT and gold.ratio:
        return PERCENT.in_base(found.value), gold.value, margin
    if gold.unit is PERCENT and found.ratio:
        return found.value, PERCENT.in_base(gold.value), PERCENT.in_base(margin)
    return found.value, gold.value, margin


def _with_margin(answer: str) -> tuple[str, Fraction | None]:
    """The reference without its margin ("9.8 ± 0.1 m" -> "9.8 m", 1/10); None for a margin that cannot be read."""
    start = _MARGIN.search(answer)
    if start is None:
        return answer, Fraction(0)
    stated = re.match(r"[0-9]+(?:\.[0-9]+)?", answer[start.end() :])
    if stated is None:
        return answer, None
    return answer[: start.start()] + answer[start.end() + stated.end() :], Fraction(stated[0])


def _single(text: str) -> Number | str:
    """The number a text gives, or why there is none: announced ones decide, then those after a verb, then all."""
    found = list(numbers(_with_margin(text)[0]))
    if not found:
        return "no number in the text"
    rank = max(number.rank for number in found)
    named = [number for number in found if number.rank == rank]
    if not _same(named):
        return f"several or malformed numbers: {', '.join(number.shown() for number in named[:5])}"
    return next((number for number in named if number.unit), named[0])


def _same(found: Sequence[Number]) -> bool:
    """All of them give one quantity; one without a unit repeats a number that another has a unit for."""
    if any(number.value is None for number in found):
        return False
    measured = {(n.unit.dimension, n.unit.in_base(n.value)) for n in found if n.unit and n.value is not None}
    plain = {number.value for number in found if number.unit is None}
    return len(measured) <= 1 and len(plain) <= 1 and (not measured or plain <= {n.value for n in found if n.unit})


def _symbol(number: Number) -> str:
    return number.unit.symbol if number.unit else "no unit"
