"""Pictures as records carry them: encoded bytes in, PIL out, and lossless PNG back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mbpo_core import records
from mbpo_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def open_image(image: records.Image | Mapping[str, Any]) -> Image:
    """Decode a record's picture to RGB.

    Raises:
        DataError: if there are no bytes or they are no picture.
    """
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    data = image.bytes if isinstance(image, records.Image) else image.get("bytes")
    if not data:
        raise DataError("the image has no bytes", remedy="Import the samples again: the importer inlines images.")
    try:
        with pil.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except UnidentifiedImageError as error:  # its message holds a memory address, which no row may carry
        raise DataError(f"the {len(data)} bytes are no picture in a known format") from error
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        raise DataError(f"the image cannot be decoded: {error}") from error


def png_bytes(pixels: Tensor) -> bytes:
    """Lossless PNG of (3, H, W) uint8."""
    from PIL import Image as pil

    buffer = io.BytesIO()
    pil.fromarray(pixels.cpu().permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
