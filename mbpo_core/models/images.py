"""Pictures as records carry them: encoded bytes in, PIL out, and lossless PNG back; processed pictures kept."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from mbpo_core import records
from mbpo_core.errors import UnusableImage
from mbpo_core.models.groups import ImageInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def open_image(image: records.Image | Mapping[str, Any]) -> Image:
    """Decode a record's picture to RGB.

    Raises:
        UnusableImage: if there are no bytes or they are no picture.
    """
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    data = image.bytes if isinstance(image, records.Image) else image.get("bytes")
    if not data:
        raise UnusableImage("the image has no bytes", remedy="Import the samples again: the importer inlines images.")
    try:
        with pil.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except UnidentifiedImageError as error:  # its message holds a memory address, which no row may carry
        raise UnusableImage(f"the {len(data)} bytes are no picture in a known format") from error
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        raise UnusableImage(f"the image cannot be decoded: {error}") from error


def png_bytes(pixels: Tensor) -> bytes:
    """Lossless PNG of (3, H, W) uint8."""
    from PIL import Image as pil

    buffer = io.BytesIO()
    pil.fromarray(pixels.cpu().permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass
class ImageCache:
    """Processed pictures by content, the longest unused forgotten first; several threads may share it.

    Attributes:
        limit: bytes of pixel values that are kept.
        entries: pictures that are kept, however small.
    """

    limit: int = 64 * 2**20
    entries: int = 512
    _size: int = 0
    _kept: OrderedDict[str, ImageInput] = field(default_factory=OrderedDict)
    _lock: Any = field(default_factory=Lock)

    def read(self, picture: Image, process: Callable[[Image], ImageInput]) -> ImageInput:
        """What `process` makes of a picture, keyed by the picture's pixels."""
        key = hashlib.blake2b(picture.tobytes(), digest_size=16, key=f"{picture.mode} {picture.size}".encode())
        with self._lock:
            if key.hexdigest() in self._kept:
                self._kept.move_to_end(key.hexdigest())
                return self._kept[key.hexdigest()]
        made = replace(process(picture), key=key.hexdigest())
        with self._lock:
            if made.key not in self._kept:
                self._kept[made.key] = made
                self._size += made.pixel_values.nbytes
            while self._size > self.limit or len(self._kept) > self.entries:
                _, oldest = self._kept.popitem(last=False)
                self._size -= oldest.pixel_values.nbytes
        return made
