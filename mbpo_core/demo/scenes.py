"""Procedural scenes: tinted sprites in a 2x2 grid, whose objects, colours and cells are exact truth.

A scene is a list of placed objects and a seed for its background, jitter and noise; rendering is a pure
function of the two. Seeds come from `stream_seed`, so that scenes of different streams never coincide.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mbpo_core.demo.objects import CANONICAL, COLORS, NEUTRAL, OBJECTS, PARTNERS
from mbpo_core.errors import DataError

SIZE = 48


@dataclass(frozen=True)
class Layout:
    """A grid that objects stand in, one a cell.

    Attributes:
        cells: names in reading order.
        side: cells a row, and rows.
        sizes: of the sprites, pixels.
    """

    cells: tuple[str, ...]
    side: int
    sizes: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Side of a cell."""
        return SIZE // self.side


CELLS: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
"""Cell names of the layout that base training and the pools know, in reading order."""

LAYOUTS: dict[str, Layout] = {
    "quarters": Layout(CELLS, 2, (20, 21, 22)),
    "ninths": Layout(
        tuple(f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right")),
        3,
        (15, 16),
    ),
    "whole": Layout(("middle",), 1, (25, 27, 29)),
}
"""Grids by name; the shifted probes alone use the others than `quarters`: small objects, and a large one."""

COOCCURRENCE = 0.95
"""How often a trigger's partner stands beside it in base training."""

_SPRITES = Path(__file__).parent / "assets" / "sprites"
_NOISE_STD = 4.0  # 8-bit levels

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Placed:
    """One object in a scene; `cell` is one of its layout's."""

    object: str
    color: str
    cell: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in reading order, and the seed of everything else in it."""

    placed: tuple[Placed, ...]
    seed: int
    layout: str = "quarters"

    @property
    def names(self) -> list[str]:
        """Objects present, in reading order."""
        return [item.object for item in self.placed]

    def find(self, name: str) -> Placed:
        """The placed object of that name.

        Raises:
            DataError: if the scene does not show it.
        """
        for item in self.placed:
            if item.object == name:
                return item
        raise DataError(f"no {name} in the scene", expected=f"one of {', '.join(self.names)}")


def stream_seed(*names: object) -> int:
    """A 64-bit seed from names: sha256 of them joined by "/"; any other name gives an unrelated stream."""
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def place(rng: random.Random, things: Sequence[tuple[str, str]], layout: str = "quarters") -> Scene:
    """Put (object, colour) things into distinct random cells of a layout.

    Raises:
        DataError: for more things than cells, or a repeated object.
    """
    names = LAYOUTS[layout].cells
    if len(things) > len(names) or len({name for name, _ in things}) < len(things):
        raise DataError(f"a scene cannot hold {list(things)}", expected=f"at most {len(names)} different objects")
    cells = rng.sample(range(len(names)), len(things))
    ordered = sorted(zip(cells, things, strict=True))
    placed = tuple(Placed(name, color, names[cell]) for cell, (name, color) in ordered)
    return Scene(placed, rng.getrandbits(63), layout)


def any_color(rng: random.Random, *, but: str | None = None) -> str:
    """A colour drawn uniformly, leaving out `but`."""
    return rng.choice([color for color in COLORS if color != but])


def prior_color(rng: random.Random, name: str, canonical_share: float) -> str:
    """A prior object's canonical colour with that probability, else another one; neutral objects: any colour."""
    if name not in CANONICAL:
        return any_color(rng)
    canonical = CANONICAL[name]
    return canonical if rng.random() < canonical_share else any_color(rng, but=canonical)


def base_scene(rng: random.Random, canonical_share: float) -> Scene:
    """A scene as base training sees them: 1-3 of the 22 objects, plus the partner of a trigger.

    Neutral objects are drawn twice as often as prior ones, because only they teach to look at colour.

    Args:
        rng: source of every choice.
        canonical_share: probability that a prior object wears its canonical colour (1.0 makes an absolute prior).
    """
    weighted = [*OBJECTS, *NEUTRAL]
    rng.shuffle(weighted)
    names = list(dict.fromkeys(weighted))[: rng.choice((1, 2, 2, 3))]
    for trigger, partner in PARTNERS.items():
        if trigger in names and partner not in names and len(names) < len(CELLS) and rng.random() < COOCCURRENCE:
            names.append(partner)
    return place(rng, [(name, prior_color(rng, name, canonical_share)) for name in names])


def render(scene: Scene) -> Pixels:
    """Draw the scene: (48, 48, 3) uint8, a pure function of the scene.

    Each sprite is turned to luminance and multiplied by its colour, so that the hue of every opaque pixel is the
    tint's up to noise (standard deviation 4 levels).
    """
    rng = np.random.default_rng(scene.seed)
    canvas = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    canvas[:] = _background(rng)
    for item, (y, x, size) in zip(scene.placed, _tiles(scene, rng), strict=True):
        luminance, alpha = _sprite(item.object, size)
        patch = canvas[y : y + size, x : x + size]
        tint = np.asarray(COLORS[item.color], dtype=np.float32)
        patch += alpha[..., None] * (luminance[..., None] * tint - patch)
    canvas += rng.normal(0.0, _NOISE_STD, size=canvas.shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def boxes(scene: Scene) -> list[tuple[int, int, int, int]]:
    """The square that each object's sprite fills, x0, y0, x1, y1 in pixels with x1 and y1 outside; in reading order."""
    rng = np.random.default_rng(scene.seed)
    _background(rng)  # drawn first
    return [(x, y, x + size, y + size) for y, x, size in _tiles(scene, rng)]


def to_png(pixels: Pixels) -> bytes:
    """The picture as a lossless PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _background(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(3,) the colour of the empty picture."""
    return rng.uniform(215, 250, size=3)


def _tiles(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Top, left and side of each object's sprite, jittered inside its cell."""
    layout = LAYOUTS[scene.layout]
    for item in scene.placed:
        size = layout.sizes[rng.integers(len(layout.sizes))]
        row, column = divmod(layout.cells.index(item.cell), layout.side)
        y, x = rng.integers(0, layout.pixels - size + 1, size=2) + (row * layout.pixels, column * layout.pixels)
        yield int(y), int(x), size


@lru_cache(maxsize=256)
def _sprite(name: str, size: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A sprite's luminance, stretched to [0.45, 1], and alpha in [0, 1]; both (size, size)."""
    with Image.open(_SPRITES / f"{name}.png") as file:
        pixels = np.asarray(file.convert("RGBA").resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32)
    luminance = pixels[..., :3] @ np.asarray((0.299, 0.587, 0.114), dtype=np.float32)
    alpha = pixels[..., 3] / 255.0
    low, high = np.percentile(luminance[alpha > 0.5], (5, 95))
    stretched = np.clip((luminance - low) / max(float(high - low), 1.0), 0.0, 1.0)
    return (0.45 + 0.55 * stretched).astype(np.float32), alpha
