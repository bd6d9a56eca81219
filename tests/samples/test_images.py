"""Pictures of every sort come out as upright 8-bit RGB, or not at all."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mbpo_core.samples.images import ImageLoader, plain_rgb
from mbpo_core.samples.problems import Unusable
from tests.samples.helpers import encoded, opened, picture

RED = (200, 30, 30)


def refused(call: Any, *arguments: Any) -> Unusable:
    with pytest.raises(Unusable) as error:
        call(*arguments)
    return error.value


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_plain_file_keeps_its_bytes(form: str) -> None:
    data = encoded(picture(), form)
    assert plain_rgb(data, 100) is data


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (picture(), "BMP"),
        (picture(), "WEBP"),
        (picture(), "TIFF"),
        (picture().convert("P"), "PNG"),
        (picture().convert("P"), "GIF"),
        (picture().convert("L"), "PNG"),
        (picture().convert("L"), "JPEG"),
        (picture((0, 0, 0)).convert("1"), "PNG"),
        (picture().convert("CMYK"), "JPEG"),
        (picture((200, 30, 30, 255), mode="RGBA"), "PNG"),
        (picture().convert("LA"), "PNG"),
        (picture().convert("LAB"), "TIFF"),
    ],
)
def test_other_modes_and_formats_become_rgb_png(image: Image.Image, form: str) -> None:
    result = opened(plain_rgb(encoded(image, form), 100))
    assert (result.format, result.mode, result.size) == ("PNG", "RGB", (8, 6))
    assert result.getpixel((0, 0)) != result.getpixel((7, 5))


def test_a_palette_and_a_lossless_file_keep_their_colors() -> None:
    for data in (encoded(picture().quantize(4)), encoded(picture(), "BMP"), encoded(picture(), "WEBP", lossless=True)):
        assert opened(plain_rgb(data, 100)).getpixel((7, 5)) == RED


def test_cmyk_keeps_its_color() -> None:
    pixel = opened(plain_rgb(encoded(picture().convert("CMYK"), "JPEG", quality=100), 100)).getpixel((7, 5))
    assert isinstance(pixel, tuple)
    assert all(abs(value - wanted) <= 6 for value, wanted in zip(pixel, RED, strict=True))


def test_transparency_lies_on_white() -> None:
    image = picture((200, 30, 30, 255), mode="RGBA")
    image.putpixel((3, 3), (0, 0, 0, 0))
    image.putpixel((4, 4), (0, 0, 0, 128))
    result = opened(plain_rgb(encoded(image), 100))
    assert [result.getpixel(at) for at in ((3, 3), (4, 4), (7, 5))] == [(255, 255, 255), (127, 127, 127), RED]
    palette = encoded(picture().quantize(4), transparency=picture().quantize(4).getpixel((7, 5)))
    assert opened(plain_rgb(palette, 100)).getpixel((7, 5)) == (255, 255, 255)
    keyed = encoded(picture(), transparency=RED)  # an RGB file with one transparent color
    assert opened(plain_rgb(keyed, 100)).getpixel((7, 5)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 257, 32_896, 65_535]], dtype=np.uint16)
    result = np.asarray(opened(plain_rgb(encoded(Image.fromarray(levels)), 100)))
    assert result[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (result[..., 0] == result[..., 1]).all()


def test_sixteen_bit_color_becomes_eight() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", 65_535, 32_896, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    result = plain_rgb(data, 100)
    assert result[24] == 8
    assert opened(result).getpixel((0, 0)) == (255, 128, 0)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view: the stored upper left is the upper right to see
    result = opened(plain_rgb(encoded(picture((250, 250, 250)), form, exif=exif), 100))
    assert (result.format, result.size) == ("PNG", (6, 8))
    dark = np.asarray(result.convert("L")) < 128
    assert np.argwhere(dark).tolist() in ([[0, 5]], [[0, 4], [0, 5], [1, 4], [1, 5]])  # (row, column), JPEG blurs
    assert 0x0112 not in result.getexif()


def test_an_upright_exif_tag_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encoded(picture(), "JPEG", exif=exif)
    assert plain_rgb(data, 100) is data


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    frames = [picture(RED), picture((30, 200, 30))]
    options = {"lossless": True} if form == "WEBP" else {}
    result = opened(plain_rgb(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options), 100))
    assert (result.format, getattr(result, "n_frames", 1)) == ("PNG", 1)
    assert result.getpixel((7, 5)) == RED


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", encoded(picture())[:60], encoded(picture(size=(64, 64)), "JPEG")[:-300]]
)
def test_a_broken_file_is_unreadable(data: bytes) -> None:
    problem = refused(plain_rgb, data, 10_000)
    assert problem.reason == "unreadable_image"
    assert "0x" not in problem.detail, "equal runs say equal things"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_one_pixel_is_a_picture(mode: str) -> None:
    """Small ones are kept as they are: a family's own resize makes of them what it needs."""
    form = "TIFF" if mode == "CMYK" else "PNG"
    result = opened(plain_rgb(encoded(Image.new(mode, (1, 1)), form), 1))
    assert (result.format, result.mode, result.size) == ("PNG", "RGB", (1, 1))
    assert result.getpixel((0, 0)) == ((255, 255, 255) if mode in ("RGBA", "CMYK") else (0, 0, 0))


@pytest.mark.parametrize(("size", "limit"), [((1, 5000), 4999), ((5000, 1), 4999)])
def test_the_limit_counts_pixels_whatever_the_shape(size: tuple[int, int], limit: int) -> None:
    assert refused(plain_rgb, encoded(Image.new("RGB", size)), limit).reason == "image_too_large"
    assert plain_rgb(encoded(Image.new("RGB", size)), limit + 1)


def test_every_exif_orientation_stands_upright() -> None:
    """All eight, against the picture itself; the transpositions that a viewer undoes, as EXIF numbers them."""
    upright = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10)
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    for number, stored in undo.items():
        exif = Image.Exif()
        exif[0x0112] = number
        lying = upright if stored is None else upright.transpose(stored)
        assert opened(plain_rgb(encoded(lying, exif=exif), 100)).tobytes() == upright.tobytes(), number


def test_postscript_is_not_run() -> None:
    assert refused(plain_rgb, encoded(picture(), "EPS"), 100).reason == "unreadable_image"


def test_floating_point_pixels_are_refused() -> None:
    problem = refused(plain_rgb, encoded(Image.new("F", (2, 2), 0.5), "TIFF"), 100)
    assert (problem.reason, "range" in problem.detail) == ("unreadable_image", True)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    # A tiny file that claims 60,000 x 60,000 pixels and holds none of them.
    body = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    problem = refused(plain_rgb, b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 9) + b"IDAT" + bytes(13), 16_777_216)
    assert problem.reason == "image_too_large"
    problem = refused(plain_rgb, encoded(picture()), 47)
    assert problem.reason == "image_too_large"
    assert "8 x 6 pixels, at most 47 (samples.max_pixels)" in problem.detail
    assert plain_rgb(encoded(picture()), 48)


def test_every_way_to_give_an_image(tmp_path: Path) -> None:
    data = encoded(picture())
    (tmp_path / "a.png").write_bytes(data)
    loader = ImageLoader(tmp_path.resolve(), 100)
    cells = [
        data, bytearray(data), {"bytes": data, "path": None}, {"bytes": None, "path": "a.png"}, "a.png",
        str(tmp_path / "a.png"), {"bytes": data, "path": "/elsewhere/b.png"}, picture(),
    ]  # fmt: skip
    loaded = [loader.load(cell) for cell in cells]
    assert all(opened(item.image.bytes or b"").tobytes() == picture().tobytes() for item in loaded)
    assert len({item.digest for item in loaded}) == 1
    assert [item.image.path for item in loaded][3:7] == ["a.png", "a.png", "a.png", None]
    assert refused(loader.load, 7).detail == "a int is neither bytes, a path nor an image"
    assert refused(loader.load, {"bytes": None, "path": None}).reason == "unreadable_image"


def test_paths_cannot_leave_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "rooted").mkdir()
    for place in (tmp_path / "secret.png", tmp_path / "rooted" / "a.png", root / "sub" / "inside.png"):
        place.write_bytes(encoded(picture()))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "good.png").symlink_to(root / "sub" / "inside.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    loader = ImageLoader(root.resolve(), 100)
    assert loader.load("good.png").image.bytes == loader.load("sub/../sub/inside.png").image.bytes
    for path in (
        "../secret.png",
        "link.png",
        "folder/secret.png",
        str(tmp_path / "secret.png"),
        "../rooted/a.png",
        "/etc/passwd",
    ):
        problem = refused(loader.load, path)
        assert problem.reason == "image_outside_root", path
        assert "samples.image_root" in problem.detail
    for path in (
        "missing.png",
        "loop.png",
        "pipe.png",
        "sub",
        "a\0b",
        "x" * 5000,
        "https://example.org/a.png",
        "data:image/png;base64,AA",
    ):
        assert refused(loader.load, path).reason == "unreadable_image", path


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**34)  # sparse
    problem = refused(ImageLoader(tmp_path.resolve(), 100).load, "huge.png")
    assert problem.reason == "image_too_large"
    assert "17179869184 bytes" in problem.detail
