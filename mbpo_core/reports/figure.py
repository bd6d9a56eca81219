"""The README's picture: a clean image, its rejected twin, and what the model says to each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbpo_core.errors import DataError
from mbpo_core.reports.kinds import plain, words_for
from mbpo_core.reports.pictures import decode

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

SIDE = 336  # longest side of a shown image, pixels
MARGIN, GAP = 28, 28
TEXT_LINES = 3  # of an answer; the rest is cut
_INK, _SOFT, _PAPER, _LINE = "#1d1f23", "#5b616b", "#ffffff", "#d8d5cf"
_GOOD, _BAD = "#14713a", "#b3261e"


def write_figure(row: Mapping[str, Any], path: str | Path) -> None:
    """Draw one Negative row as a PNG; equal rows give equal bytes.

    Args:
        row: a row of the negatives table (images, rejected_images, question, clean_answer, attacked_answer, ...).
        path: file to write.

    Raises:
        DataError: one of the row's two images cannot be read.
    """
    shown = [decode(images[0] if images else None) for images in (row["images"], row["rejected_images"])]
    if any(image is None for image in shown):
        raise DataError(
            "a picture of this negative cannot be read",
            where=f"sample {row['sample_id']}",
            expected="a clean and a rejected image",
            remedy="Choose another row.",
        )
    pictures = [_enlarged(image) for image in shown if image is not None]
    levels = round(255 * row["perturbation_linf"])
    bound = f", at most {levels}/255 a pixel" if words_for(row["kind"]).in_ball else ""
    captions = ("clean image", f"{plain(row['kind'])} image{bound}")
    answers = (row["clean_answer"], row["attacked_answer"])
    right = (row["clean_correct"], row["clean_correct"] and not row["flipped"])
    _draw(row["question"], pictures, captions, answers, right).save(path, format="PNG", optimize=True)


def _draw(
    question: str,
    pictures: list[Image],
    captions: tuple[str, str],
    answers: tuple[str, str],
    right: tuple[bool, bool],
) -> Image:
    from PIL import Image as pil
    from PIL import ImageDraw, ImageFont

    large, small = ImageFont.load_default(24), ImageFont.load_default(16)
    width = 2 * MARGIN + 2 * SIDE + GAP
    asked = _wrapped(question, large, width - 2 * MARGIN, 4)
    top = MARGIN + 32 * len(asked) + 14
    tall = max(picture.height for picture in pictures)
    canvas = pil.new("RGB", (width, top + tall + 36 + 32 * TEXT_LINES + MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _lines(draw, (MARGIN, MARGIN), asked, large, _INK)
    bottom = 0
    for column, (picture, caption, answer, good) in enumerate(zip(pictures, captions, answers, right, strict=True)):
        left = MARGIN + column * (SIDE + GAP)
        canvas.paste(picture, (left, top))
        draw.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=_LINE)
        draw.text((left, top + tall + 8), caption, fill=_SOFT, font=small)
        said = _wrapped(f"“{answer}”", large, SIDE, TEXT_LINES)
        bottom = max(bottom, _lines(draw, (left, top + tall + 34), said, large, _GOOD if good else _BAD))
    return canvas.crop((0, 0, width, bottom + MARGIN - 8))


def _lines(draw: ImageDraw, place: tuple[int, int], lines: list[str], font: Font, color: str) -> int:
    """Draw lines below one another; returns where they end."""
    x, y = place
    for line in lines:
        draw.text((x, y), line, fill=color, font=font)
        y += 32
    return y


def _enlarged(image: Image) -> Image:
    """Longest side SIDE; small images by a whole factor with visible pixels where that fits."""
    from PIL import Image as pil

    longest = max(image.size)
    if longest <= SIDE and SIDE % longest == 0:
        return image.resize((image.width * SIDE // longest, image.height * SIDE // longest), pil.Resampling.NEAREST)
    size = (max(1, image.width * SIDE // longest), max(1, image.height * SIDE // longest))
    return image.resize(size, pil.Resampling.NEAREST if 2 * longest < SIDE else pil.Resampling.LANCZOS)


def _wrapped(text: str, font: Font, width: int, most: int) -> list[str]:
    """Lines no wider than `width`; the last one ends in "..." where text is left over."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    for index, line in enumerate(lines):
        while font.getlength(line) > width:  # one word wider than the panel
            line = f"{line[:-4]}..."
        lines[index] = line
    if len(lines) > most:
        last = f"{lines[most - 1]} ..."
        while font.getlength(last) > width:
            last = f"{last[:-5]} ..."
        lines = [*lines[: most - 1], last]
    return lines
