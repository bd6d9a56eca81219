"""Pictures for the page: decoded, shrunk where large, differences, outlined regions, and written as data URIs.

Every picture is decoded and encoded again, so nothing of a user's file but its pixels reaches the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

LARGEST = 320  # longest side on the page, pixels; larger pictures are shrunk and stored as JPEG
FACTOR = 16  # of differences: an attack's 8 or 16 levels fill the range
SMALL = 128  # up to this longest side a picture is enlarged with visible pixels
_OUTLINE = (255, 62, 165)  # of a region: a colour that stands out from the dimmed surroundings
_DIMMED = 0.35  # what is left of the light outside a region
_SKEW = 0.02  # by so much may a mask's proportions differ from the picture's that it is laid over


@dataclass(frozen=True)
class Picture:
    """An image element: data URI, size in pixels, and what it shows in words."""

    uri: Markup
    width: int
    height: int
    alt: str

    @property
    def pixelated(self) -> bool:
        """Small enough to be enlarged without smoothing."""
        return max(self.width, self.height) <= SMALL


def decode(image: Mapping[str, Any] | None) -> Image | None:
    """A record's image as RGB; None where there are no bytes or they are no picture."""
    from PIL import Image as pil

    data = (image or {}).get("bytes")
    if not data:
        return None
    try:
        with pil.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError):
        return None


def picture(image: Image | None, alt: str) -> Picture | None:
    """The picture as it stands on the page; lossless unless it had to be shrunk."""
    if image is None:
        return None
    buffer = io.BytesIO()
    kind = "png"
    if max(image.size) > LARGEST:
        image = image.copy()
        image.thumbnail((LARGEST, LARGEST))
        kind = "jpeg"
        image.save(buffer, format="JPEG", quality=85)
    else:
        image.save(buffer, format="PNG", optimize=True)
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(Markup(uri), *image.size, alt)


def largest_change(clean: Image | None, other: Image | None) -> int:
    """Largest difference of any channel, 8-bit levels; 0 where the two cannot be compared."""
    from PIL import ImageChops

    if clean is None or other is None or clean.size != other.size:
        return 0
    return max(high for _, high in ImageChops.difference(clean, other).getextrema())  # type: ignore[misc]


def amplified_difference(clean: Image | None, other: Image | None, factor: int) -> Image | None:
    """128 + factor x (other - clean), clipped to 8 bits: grey where nothing changed."""
    import numpy as np
    from PIL import Image as pil

    if clean is None or other is None or clean.size != other.size:
        return None
    change = np.asarray(other, dtype=np.int32) - np.asarray(clean, dtype=np.int32)
    return pil.fromarray(np.clip(128 + factor * change, 0, 255).astype(np.uint8))


def difference_factor(change: int) -> int:
    """FACTOR for changes of up to 16 levels, so that pages compare; larger ones get what their range allows.

    16 levels leave the range by a hair. Nothing to amplify (0) gives 1.
    """
    return FACTOR if 0 < change <= 16 else max(1, 127 // change) if change else 1


def outlined(image: Image | None, mask: Image | None) -> Image | None:
    """The picture with a region outlined and all else dimmed, at the size in which it is shown.

    Args:
        image: the clean picture.
        mask: white inside, of any size; a mask of other proportions belongs to a cropped picture and is shown alone.
    """
    import numpy as np
    from PIL import Image as pil

    if image is None or mask is None:
        return None
    if abs(mask.width * image.height - mask.height * image.width) > _SKEW * mask.height * image.width:
        return mask
    shown = image.copy()
    shown.thumbnail((LARGEST, LARGEST))
    inside = np.asarray(mask.convert("L").resize(shown.size, pil.Resampling.NEAREST)) >= 128
    pixels = np.asarray(shown).astype(np.float32)
    pixels[~inside] *= _DIMMED
    border = inside
    for _ in range(1 if max(shown.size) <= SMALL else 2):
        border = _grown(border)
    pixels[border & ~inside] = _OUTLINE
    return pil.fromarray(pixels.round().astype(np.uint8))


def is_blank(mask: Image | None) -> bool:
    """Whether a mask marks nothing."""
    return mask is None or mask.convert("L").getextrema()[1] < 128  # type: ignore[operator]


def _grown(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The region and the four neighbours of each of its pixels."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    return grown
