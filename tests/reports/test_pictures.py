"""Pictures: decoding, differences, size."""

from __future__ import annotations

import base64
import io
import random

import numpy as np
import pytest
from PIL import Image

from mbpo_core.reports.pictures import (
    amplified_difference,
    decode,
    difference_factor,
    is_blank,
    largest_change,
    outlined,
    picture,
)
from tests.reports.fake_negatives import attacked


def image(*size: int, value: int = 100) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def test_difference_is_amplified_around_grey() -> None:
    clean, other = image(4, 4), image(4, 4)
    other.putpixel((1, 0), (116, 84, 100))
    assert largest_change(clean, other) == 16
    change = amplified_difference(clean, other, 7)
    assert change is not None
    assert change.getpixel((1, 0)) == (128 + 112, 128 - 112, 128)
    assert change.getpixel((0, 0)) == (128, 128, 128)


def test_difference_needs_two_pictures_of_one_size() -> None:
    assert amplified_difference(image(4, 4), image(5, 4), 2) is None
    assert amplified_difference(None, image(4, 4), 2) is None
    assert largest_change(image(4, 4), image(5, 4)) == 0


@pytest.mark.parametrize(("change", "factor"), [(0, 1), (1, 16), (8, 16), (16, 16), (17, 7), (60, 2), (255, 1)])
def test_differences_of_attacks_are_amplified_16_times(change: int, factor: int) -> None:
    assert difference_factor(change) == factor


def test_region_keeps_its_pixels_and_dims_the_others() -> None:
    mask = image(8, 8, value=0)
    mask.paste((255, 255, 255), (2, 2, 5, 5))
    shown = outlined(image(8, 8), mask)
    assert shown is not None
    pixels = np.asarray(shown)
    assert (pixels[2:5, 2:5] == 100).all()
    assert (pixels[1, 2:5] == (255, 62, 165)).all()
    assert tuple(pixels[7, 7]) == (35, 35, 35)
    assert tuple(pixels[1, 1]) == (35, 35, 35)  # neighbours above and beside, not across


def test_mask_of_another_size_is_scaled_and_of_other_proportions_shown_alone() -> None:
    mask = image(16, 16, value=0)
    mask.paste((255, 255, 255), (0, 0, 8, 16))
    large = outlined(image(1000, 1000), mask)
    assert large is not None
    assert large.size == (320, 320)
    assert large.getpixel((100, 5)) == (100, 100, 100)
    assert large.getpixel((161, 5)) == (255, 62, 165)
    assert large.getpixel((300, 5)) == (35, 35, 35)
    assert outlined(image(20, 10), mask) is mask
    assert outlined(None, mask) is None
    assert outlined(mask, None) is None
    assert is_blank(image(4, 4, value=0))
    assert is_blank(None)
    assert not is_blank(mask)


@pytest.mark.parametrize("data", [b"", b"no picture", b"<svg onload='alert(1)'/>", None])
def test_what_is_no_picture_decodes_to_nothing(data: bytes | None) -> None:
    assert decode({"bytes": data, "path": None}) is None
    assert decode(None) is None
    assert picture(None, "alt") is None


def test_small_pictures_are_kept_exactly_and_large_ones_shrunk() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    small = picture(decode({"bytes": png(Image.fromarray(pixels))}), "x")
    assert small is not None
    assert small.pixelated
    shown = Image.open(io.BytesIO(base64.b64decode(small.uri.partition(",")[2])))
    assert (np.asarray(shown) == pixels).all()
    large = picture(image(2000, 1000), "x")
    assert large is not None
    assert (large.width, large.height) == (320, 160)
    assert large.uri.startswith("data:image/jpeg;base64,")
    assert not large.pixelated


def test_attacked_stays_in_the_ball() -> None:
    clean = png(image(8, 8))
    assert largest_change(decode({"bytes": clean}), decode({"bytes": attacked(clean, random.Random(0))})) == 16
