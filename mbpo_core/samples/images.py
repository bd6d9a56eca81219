"""Pictures as they come, made into plain 8-bit RGB files: opened once, checked, upright."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mbpo_core import records
from mbpo_core.samples.paths import resolve_image
from mbpo_core.samples.problems import Unusable
from mbpo_core.samples.urls import UrlFolder, is_url

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""File formats that are opened. Others (EPS runs a program, for one) are not."""

_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_BYTES_PER_PIXEL = 8  # of the widest uncompressed picture, 16-bit RGBA; larger files are refused unread
_HEADER_BYTES = 2**20
_ADDRESS = re.compile(r" ?<[^<>]* at 0x[0-9a-f]+>")  # PIL names the buffer, which differs from run to run
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Loaded:
    """A usable picture and the sha256 of the bytes it came as, by which splits are dealt."""

    image: records.Image
    digest: str


class ImageLoader:
    """Turns an image cell into records; remembers the last few, because questions about one image stand together."""

    def __init__(self, root: Path, max_pixels: int, remember: int = 16, urls: UrlFolder | None = None) -> None:
        self._root, self._max_pixels, self._remember, self._urls = root, max_pixels, remember, urls
        self._recent: OrderedDict[str, Loaded] = OrderedDict()
        self.came_as: Counter[str] = Counter()
        """Pictures read so far by format and mode, as "JPEG RGB"; one that is remembered counts once."""

    def load(self, value: Any) -> Loaded:
        """One picture from encoded bytes, an HF image (bytes and path), a path, a URL that was fetched, or a PIL image.

        Plain 8-bit RGB PNG and JPEG files that stand upright keep their bytes. Everything else is
        re-encoded as RGB PNG: turned as EXIF says, transparency on white, 16 bits scaled to 8,
        the first frame of an animation.

        Raises:
            Unusable: unreadable_image, image_too_large or image_outside_root.
        """
        if isinstance(value, dict):
            data, name = value.get("bytes"), value.get("path") or ""
            value = data if data else name
        else:
            name = value if isinstance(value, str) else ""
        if isinstance(value, str) and value:
            text, urls = value, self._urls
            if urls is not None and is_url(text):
                return self._cached(f"url:{text}", urlsplit(text).path, lambda: urls.read(text))
            return self._cached(f"path:{text}", name, lambda: self._read(resolve_image(self._root, text)))
        if isinstance(value, bytes | bytearray | memoryview):
            data = bytes(value)
            return self._cached(hashlib.sha256(data).hexdigest(), name, lambda: data)
        if hasattr(value, "save") and hasattr(value, "getexif"):
            return self._cached("", name, lambda: _encoded(value))
        raise Unusable("unreadable_image", f"a {type(value).__name__} is neither bytes, a path nor an image")

    def _cached(self, key: str, name: str, read: Any) -> Loaded:
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        data: bytes = read()
        plain, form = _plain_rgb(data, self._max_pixels)
        image = records.Image(bytes=plain, path=Path(name).name or None)
        self.came_as[form] += 1
        loaded = Loaded(image, hashlib.sha256(data).hexdigest())
        if key:
            self._recent[key] = loaded
            if len(self._recent) > self._remember:
                self._recent.popitem(last=False)
        return loaded

    def _read(self, path: Path) -> bytes:
        limit = self._max_pixels * _BYTES_PER_PIXEL + _HEADER_BYTES
        try:
            size = path.stat().st_size
            if size > limit:
                raise Unusable("image_too_large", f"{path.name} has {size} bytes, at most {limit} are read")
            return path.read_bytes()
        except OSError as error:
            raise Unusable("unreadable_image", f"{path.name}: {error.strerror}") from error


def plain_rgb(data: bytes, max_pixels: int) -> bytes:
    """The file itself where it is plain 8-bit RGB PNG or JPEG, else its picture as RGB PNG.

    Args:
        data: an encoded picture.
        max_pixels: width times height allowed; looked at before anything is decoded.

    Raises:
        Unusable: unreadable_image or image_too_large.
    """
    return _plain_rgb(data, max_pixels)[0]


def _plain_rgb(data: bytes, max_pixels: int) -> tuple[bytes, str]:
    """The same, and what the picture came as."""
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                detail = f"{width} x {height} pixels, at most {max_pixels} (samples.max_pixels) are accepted"
                raise Unusable("image_too_large", detail)
            plain, form = _is_plain(picture, data), f"{picture.format} {picture.mode}"
            picture.load()
            return (data if plain else _encoded(_upright_rgb(picture))), form
    except pil.DecompressionBombError as error:
        raise Unusable("image_too_large", str(error)) from error
    except Unusable:
        raise
    except Exception as error:  # PIL's decoders raise anything on broken files: OSError, SyntaxError, struct.error, ...
        told = _ADDRESS.sub("", f"{type(error).__name__}: {error}")
        raise Unusable("unreadable_image", told[:300]) from error


def _is_plain(picture: Image, data: bytes) -> bool:
    if picture.mode != "RGB" or picture.format not in {"PNG", "JPEG"} or getattr(picture, "n_frames", 1) != 1:
        return False
    if picture.format == "PNG" and (data[24] != 8 or "transparency" in picture.info):
        return False  # byte 24 of a PNG is its bit depth
    return bool(picture.getexif().get(_ORIENTATION, 1) == 1)


def _upright_rgb(picture: Image) -> Image:
    from PIL import Image as pil
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise Unusable("unreadable_image", "floating-point pixels have no declared range")
    if picture.mode.startswith("I"):
        return _eight_bit(picture)
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return pil.alpha_composite(pil.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bit(picture: Image) -> Image:
    """16-bit grey levels scaled to 8 bits; PIL's own conversion would clip them."""
    import numpy as np
    from PIL import Image as pil

    levels = np.asarray(picture, dtype=np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise Unusable("unreadable_image", f"grey levels {levels.min()} to {levels.max()}, expected 16 bits")
    return pil.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")


def _encoded(picture: Image) -> bytes:
    buffer = io.BytesIO()
    if picture.mode not in {"RGB", "RGBA", "L", "P", "LA", "1", "I;16", "I"}:
        picture = picture.convert("RGB")
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
