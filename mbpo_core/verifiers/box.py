"""A box in a picture: right where it overlaps the reference enough."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import Judgement
from mbpo_core.verifiers.rules import PLAIN, BoxScale, Rules
from mbpo_core.verifiers.text import clean

NAME, VERSION = "box", 1

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1: left, top, right and bottom edge, x0 < x1 and y0 < y1."""

_NUMBER = r"[-+]?[0-9]{1,9}(?:\.[0-9]{1,9})?"
_BETWEEN = r"\s?[,;\s]\s?"
_CORNER = rf"[\[(]\s?({_NUMBER}){_BETWEEN}({_NUMBER})\s?[\])]"
_BOX = re.compile(
    rf"[\[(<{{]\s?({_NUMBER}){_BETWEEN}({_NUMBER}){_BETWEEN}({_NUMBER}){_BETWEEN}({_NUMBER})\s?[\])>}}]"
    rf"|{_CORNER}\s?(?:,|-|to|and)?\s?{_CORNER}"
)
_BARE = re.compile(rf"({_NUMBER}){_BETWEEN}({_NUMBER}){_BETWEEN}({_NUMBER}){_BETWEEN}({_NUMBER})\.?")
_LARGEST: dict[BoxScale, float] = {"pixels": float("inf"), "unit": 1.0, "thousand": 1000.0}


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes.

        iou = |A n B| / |A u B|,    |A u B| = |A| + |B| - |A n B|

    In [0, 1], symmetric, 1 only for equal boxes, 0 where they share no area; the same in any scale of either axis.

    Args:
        first: x0, y0, x1, y1 with x0 < x1 and y0 < y1.
        second: the same, in the same scale.
    """
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    both = max(wide, 0.0) * max(high, 0.0)
    return both / (_area(first) + _area(second) - both)


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The one box that a text gives, as "[x0, y0, x1, y1]", or None."""
    found = _single(text, rules.box_scale)
    return None if isinstance(found, str) else _shown(found)


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Right where the IoU with the reference is `rules.box_iou` or more.

    Both are given in the scale `rules.box_scale`, which tells what coordinates can be; IoU is the same in each.

    Raises:
        VerifierError: the reference answer does not give exactly one box of that scale.
    """
    gold = _single(answer, rules.box_scale)
    if isinstance(gold, str):
        raise VerifierError(
            f"box cannot read the reference answer {answer!r:.120}: {gold}",
            expected=f"one box [x0, y0, x1, y1] in the scale {rules.box_scale}",
            remedy="Correct the answer, the question's kind or samples.box_scale.",
        )
    found = _single(text, rules.box_scale)
    if isinstance(found, str):
        return Judgement("unparsed", None, found)
    overlap = iou(found, gold)
    about = f"IoU {overlap:.3f} with the reference answer {_shown(gold)}"
    if overlap >= rules.box_iou:
        return Judgement("correct", _shown(found), about)
    return Judgement("wrong", _shown(found), f"{about}, below {rules.box_iou:g}")


def is_box(text: str) -> bool:
    """A text that is one box in brackets, and nothing else."""
    return _BOX.fullmatch(" ".join(clean(text).split())) is not None


def _single(text: str, scale: BoxScale) -> Box | str:
    """The box, or why there is none: "[10, 20, 30, 40]", "(10, 20), (30, 40)" anywhere, or four bare numbers alone."""
    found = list(dict.fromkeys(_boxes(text)))
    if not found:
        return "no box in the text"
    if len(found) > 1:
        return f"several boxes: {', '.join(map(_shown, found[:3]))}"
    x0, y0, x1, y1 = found[0]
    if not (x0 < x1 and y0 < y1):
        return f"{_shown(found[0])} is no box: its second corner is not right of and below the first"
    if min(found[0]) < 0 or max(found[0]) > _LARGEST[scale]:
        return f"{_shown(found[0])} is not in the scale {scale}"
    return found[0]


def _boxes(text: str) -> Iterator[Box]:
    plain = " ".join(clean(text).split())
    bare = _BARE.fullmatch(plain)
    for match in [bare] if bare else _BOX.finditer(plain):
        if plain[max(0, match.start() - 4) : match.start()].casefold().endswith(("not ", "n't ")):
            continue
        x0, y0, x1, y1 = (float(number) for number in match.groups() if number is not None)
        yield x0, y0, x1, y1


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shown(box: Box) -> str:
    return f"[{', '.join(f'{value:.12g}' for value in box)}]"
