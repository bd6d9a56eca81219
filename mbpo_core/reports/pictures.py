"""Pictures for the page: decoded, shrunk where large, amplified differences, and written as data URIs.

Every picture is decoded and encoded again, so nothing of a user's file but its pixels reaches the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 320  # longest side on the page, pixels; larger pictures are shrunk and stored as JPEG
SMALL = 128  # up to this longest side a picture is enlarged with visible pixels


@dataclass(frozen=True)
class Picture:
    """An image element: data URI, size in pixels, and what it shows in words."""

    uri: str
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
    return Picture(uri, *image.size, alt)


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
    """The largest whole factor that keeps a change of so many levels inside the picture's range."""
    return max(1, 127 // change) if change else 1
