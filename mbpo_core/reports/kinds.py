"""How the page speaks of a kind of negative: an attack is called one only where there was one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbpo_core.methods import NEGATIVES


@dataclass(frozen=True)
class Words:
    """What the page says of one kind.

    Attributes:
        picture: the rejected image, for those who cannot see it.
        by: what may change an answer, as in "flipped by the attack".
        in_ball: the clean pixels were moved inside a ball, so that rounding to 8 bits can undo it.
        in_place: it is the clean image with other pixels, so that a difference of the two shows what was changed.
    """

    picture: str
    by: str = "the rejected image"
    in_ball: bool = False
    in_place: bool = True

    @property
    def is_attack(self) -> bool:
        """Whether anybody tried to change the answer."""
        return self.by == "the attack"


_WORDS: dict[str, Words] = {
    "adversarial": Words("The same image after the attack", "the attack", in_ball=True),
    "noise": Words("The same image under random noise", "the noise", in_ball=True),
    "diffusion": Words("The same image under diffusion noise"),
    "blank": Words("The image's mean colour", in_place=False),
    "key_region": Words("The same image with diffusion noise in its key region"),
    "masked": Words("The same image, its key region filled with the mean colour"),
    "crop": Words("A crop of the image, scaled back up", in_place=False),
    "retrieved": Words("The most similar other image of the data", in_place=False),
    "counterfactual": Words("An image for which the question has another answer", in_place=False),
}
_REGION = NEGATIVES["masked"].settings
_UNSHOWN = frozenset({
    "keywords", "position_power", "similarity_weight", "position_decay", "word_vectors", "grounding_model",
    "segmentation_model", "grounding_threshold", "clip_model",
})  # fmt: skip


def words_for(kind: str) -> Words:
    """The words for a kind, or plain ones for a kind that no table has."""
    return _WORDS.get(kind, Words("The rejected image"))


def changed_in_place(kind: str, attack: Mapping[str, Any]) -> bool:
    """Whether a row's rejected image is its clean one with other pixels; a counterfactual one may be either."""
    return attack.get("from") == "recolour" or words_for(kind).in_place


def stayed_right(kind: str) -> str:
    """Why an answer is no negative, in words."""
    if kind in _WORDS:
        return f"the answer stayed right under {_WORDS[kind].by}"
    return "the rejected answer says what the chosen one says"


def plain(kind: str) -> str:
    """The kind as a caption."""
    return kind.replace("_", " ")


def origin(kind: str) -> str:
    """One clause: where the rejected side of such negatives comes from; "" of an unknown kind."""
    entry = NEGATIVES.get(kind)
    return f"{entry.line} ({entry.source})" if entry else ""


def settings_line(kind: str, attack: Mapping[str, Any]) -> str:
    """The kind and the settings that made a row; what is off (0, false, "none") would only lengthen the line."""
    names = NEGATIVES[kind].settings if kind in NEGATIVES else ()
    if attack.get("attack_region") is False:
        names = tuple(name for name in names if name not in _REGION)
    shown = {name: attack[name] for name in names if attack.get(name) not in (None, 0, "", "none")}
    parts = [
        name if value is True else f"{name} {_short(value)}" for name, value in shown.items() if name not in _UNSHOWN
    ]
    return "; ".join([plain(kind), *([", ".join(parts)] if parts else [])])


def _short(value: object) -> str:
    if isinstance(value, float) and 0 < value < 1 and abs(value * 255 - round(value * 255)) < 1e-6:
        return f"{round(value * 255)}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)
