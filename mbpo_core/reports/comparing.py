"""Clean and rejected images side by side, with their difference where the two can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbpo_core.reports.kinds import changed_in_place, plain, words_for
from mbpo_core.reports.pictures import Picture, amplified_difference, decode, difference_factor, largest_change, picture

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 9  # pictures of one row that are shown

Captioned = tuple[str, Picture | None]


@dataclass(frozen=True)
class Looks:
    """The decoded images of one row.

    Attributes:
        clean: as the question is asked.
        rejected: the wrong ones in the same order; none where no wrong image was made.
        in_place: the wrong ones are the clean ones with other pixels.
    """

    clean: list[Image | None]
    rejected: list[Image | None]
    in_place: bool

    @property
    def change(self) -> int:
        """The largest difference of a channel, 8-bit levels, over images that can be compared."""
        both = zip(self.clean, self.rejected, strict=False) if self.in_place else ()
        return max((largest_change(*images) for images in both), default=0)


def looks_of(row: Mapping[str, Any], kind: str, attack: Mapping[str, Any]) -> Looks:
    """The images of a pair or a negative of that kind; `attack` says how they were made, where that is known."""
    clean, rejected = ([decode(image) for image in row[column]] for column in ("images", "rejected_images"))
    return Looks(clean, rejected, changed_in_place(kind, attack))


def factor_for(several: Iterable[Looks]) -> int:
    """One factor that amplifies the differences of all rows, and none beyond what a picture can show."""
    return difference_factor(max((looks.change for looks in several), default=0))


def side_by_side(
    looks: Looks, kind: str, question: str, factor: int, *, name: str = "", regions: Mapping[int, Captioned] = {}
) -> list[Captioned]:
    """Captioned pictures of a row: each clean image, its region where it has one, the rejected image, the difference.

    Args:
        looks: the row's images.
        kind: of the negative.
        question: for the description of the clean image.
        factor: of the difference.
        name: caption of the rejected image; its kind if empty.
        regions: by place of the clean image.
    """
    shown: list[Captioned] = []
    several = len(looks.clean) > 1
    for place, clean in enumerate(looks.clean or [None]):
        number = f" {place + 1}" if several else ""
        caption = f"image{number}" if several and not looks.rejected else f"clean{number}"
        shown.append((caption, picture(clean, f"Image{number} of the question: {question}")))
        shown += [regions[place]] if place in regions else []
        if place < len(looks.rejected):
            wrong = looks.rejected[place]
            shown.append((f"{name or plain(kind)}{number}", picture(wrong, words_for(kind).picture)))
            shown += _difference(clean, wrong, factor) if looks.in_place else []
    return shown[:MOST]


def _difference(clean: Image | None, wrong: Image | None, factor: int) -> list[Captioned]:
    """Nothing where the two cannot be compared."""
    change = amplified_difference(clean, wrong, factor)
    times, words = (f" ×{factor}", f", {factor} times amplified") if factor > 1 else ("", "")
    alt = f"Difference of the two images{words} around grey"
    return [] if change is None else [(f"difference{times}", picture(change, alt))]
