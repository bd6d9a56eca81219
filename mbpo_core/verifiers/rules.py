"""What a question declares of how its answer is judged: keys of a sample's `meta`, all optional."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mbpo_core.errors import VerifierError

BoxScale = Literal["pixels", "unit", "thousand"]


@dataclass(frozen=True)
class Rules:
    """What is right beside the reference answer itself.

    Attributes:
        aliases: short_text: other answers that are right, too.
        tolerance: numeric: largest |number - reference| / |reference| that is right; ChartQA's relaxed accuracy has
            0.05. 0 asks for the very number.
        box_scale: box: what coordinates are given in: pixels, shares of the picture's sides (0 to 1), or thousandths
            of them (0 to 1000).
        box_iou: box: least intersection over union that is right.
    """

    aliases: tuple[str, ...] = ()
    tolerance: float = 0.0
    box_scale: BoxScale = "pixels"
    box_iou: float = 0.5

    def without_aliases(self) -> Rules:
        """The rules for another answer than the reference, whose aliases they are."""
        return replace(self, aliases=())


PLAIN = Rules()


def rules_of(meta: str) -> Rules:
    """The rules that a `meta` column's JSON object declares; other keys, and text that is no such object, say nothing.

    Raises:
        VerifierError: a rule has a value that it cannot have.
    """
    try:
        found = json.loads(meta)
    except json.JSONDecodeError:
        return PLAIN
    if not isinstance(found, dict) or not (declared := {name: found[name] for name in _CHECKS if name in found}):
        return PLAIN
    for name, value in declared.items():
        allowed, expected = _CHECKS[name]
        if not allowed(value):
            raise VerifierError(
                f"meta.{name} is {value!r:.80}", expected=expected, remedy="docs/data.md, The keys of `meta`."
            )
    if "aliases" in declared:
        declared["aliases"] = tuple(declared["aliases"])
    return Rules(**declared)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def without_aliases(meta: str) -> str:
    """The meta of a sample whose answer has been replaced: the aliases were the old answer's."""
    found = json.loads(meta)
    return json.dumps({name: v for name, v in found.items() if name != "aliases"}) if "aliases" in found else meta


_CHECKS: dict[str, tuple[Any, str]] = {
    "aliases": (lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v), "a list of texts"),
    "tolerance": (lambda v: _is_number(v) and 0 <= v < 1, "a share in [0, 1)"),
    "box_scale": (lambda v: v in get_args(BoxScale), f"one of {', '.join(get_args(BoxScale))}"),
    "box_iou": (lambda v: _is_number(v) and 0 < v <= 1, "a share in (0, 1]"),
}
