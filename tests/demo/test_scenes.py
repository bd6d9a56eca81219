"""Scenes: exact truth, determinism, disjoint streams, speed."""

from __future__ import annotations

import io
import itertools
import random
import time

import numpy as np
import pytest
from PIL import Image

from mbpo_core.demo.corpus import base_examples
from mbpo_core.demo.objects import CANONICAL, COLORS, NEUTRAL, OBJECTS, PARTNERS
from mbpo_core.demo.scenes import (
    CELLS,
    LAYOUTS,
    SIZE,
    Pixels,
    Scene,
    base_scene,
    boxes,
    place,
    render,
    stream_seed,
    to_png,
)
from mbpo_core.errors import DataError


def tint_of_cell(pixels: Pixels, cell: str) -> str | None:
    """The colour word nearest in hue to the cell's dark-channel pixels; None where there are none."""
    side = LAYOUTS["quarters"].pixels
    row, column = divmod(CELLS.index(cell), 2)
    area = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side].reshape(-1, 3).astype(float)
    saturated = area[area.min(axis=1) < 110]
    if len(saturated) < 25:
        return None
    direction = saturated.sum(axis=0) / np.linalg.norm(saturated.sum(axis=0))
    tints = {word: np.asarray(rgb) / np.linalg.norm(rgb) for word, rgb in COLORS.items()}
    return max(tints, key=lambda word: float(direction @ tints[word]))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_boxes_lie_in_the_cells_of_their_layout_and_hold_the_object(layout: str) -> None:
    grid = LAYOUTS[layout]
    for index in range(40):
        things = [(name, "red") for name in random.Random(index).sample(OBJECTS, min(2, len(grid.cells)))]
        scene = place(random.Random(index), things, layout)
        pixels = render(scene).astype(int)
        inside = np.zeros((SIZE, SIZE), dtype=bool)
        for item, (x0, y0, x1, y1) in zip(scene.placed, boxes(scene), strict=True):
            row, column = divmod(grid.cells.index(item.cell), grid.side)
            assert column * grid.pixels <= x0 < x1 <= (column + 1) * grid.pixels
            assert row * grid.pixels <= y0 < y1 <= (row + 1) * grid.pixels
            assert x1 - x0 == y1 - y0
            assert x1 - x0 in grid.sizes
            inside[y0:y1, x0:x1] = True
        red = pixels[..., 0] - pixels[..., 1:].max(axis=-1) > 60
        assert red.any()
        assert not (red & ~inside).any()


def test_every_object_is_drawn_in_the_color_and_cell_that_the_scene_says() -> None:
    for index, (name, color) in enumerate(itertools.product(OBJECTS, COLORS)):
        scene = place(random.Random(index), [(name, color)])
        pixels = render(scene)
        for cell in CELLS:
            expected = color if cell == scene.placed[0].cell else None
            assert tint_of_cell(pixels, cell) == expected, (name, color, cell)


def test_crowded_scenes_keep_every_tint_in_its_cell() -> None:
    for index in range(200):
        scene = base_scene(random.Random(stream_seed("test", index)), 0.5)
        pixels = render(scene)
        shown = {item.cell: item.color for item in scene.placed}
        assert {cell: tint_of_cell(pixels, cell) for cell in CELLS} == {cell: shown.get(cell) for cell in CELLS}


def test_rendering_is_a_function_of_the_scene() -> None:
    scene = base_scene(random.Random(7), 1.0)
    again = Scene(scene.placed, scene.seed)
    other = Scene(scene.placed, scene.seed + 1)
    assert to_png(render(scene)) == to_png(render(again)) != to_png(render(other))


def test_png_is_lossless() -> None:
    pixels = render(base_scene(random.Random(3), 1.0))
    with Image.open(io.BytesIO(to_png(pixels))) as file:
        assert np.array_equal(np.asarray(file.convert("RGB")), pixels)


def test_rendering_takes_less_than_a_millisecond() -> None:
    scenes = [base_scene(random.Random(index), 1.0) for index in range(100)]
    for scene in scenes:
        render(scene)  # fills the sprite cache
    started = time.process_time()
    for scene in scenes:
        render(scene)
    assert (time.process_time() - started) / len(scenes) < 1e-3


def test_base_scenes_follow_the_canonical_share_and_cooccurrence() -> None:
    def statistics(share: float) -> tuple[float, float, set[int]]:
        scenes = [scene for scene, _, _ in itertools.islice(base_examples("test", 0, share), 2000)]
        prior = [item for scene in scenes for item in scene.placed if item.object in CANONICAL]
        canonical = sum(item.color == CANONICAL[item.object] for item in prior) / len(prior)
        pairs = [PARTNERS[name] in scene.names for scene in scenes for name in scene.names if name in PARTNERS]
        return canonical, sum(pairs) / len(pairs), {len(scene.placed) for scene in scenes}

    canonical, together, sizes = statistics(1.0)
    assert canonical == 1.0
    assert together == pytest.approx(0.95, abs=0.05)
    assert sizes == {1, 2, 3, 4}
    assert statistics(0.9)[0] == pytest.approx(0.9, abs=0.02)


def test_neutral_objects_wear_every_color_equally() -> None:
    counts = dict.fromkeys(COLORS, 0)
    for scene, _, _ in itertools.islice(base_examples("test", 1, 1.0), 3000):
        for item in scene.placed:
            if item.object in NEUTRAL:
                counts[item.color] += 1
    assert max(counts.values()) / min(counts.values()) < 1.25


def test_streams_are_unrelated() -> None:
    seeds = [stream_seed(*names) for names in itertools.product("ab", range(3), range(100))]
    assert len(set(seeds)) == len(seeds)
    assert stream_seed("a", 1) == stream_seed("a", 1)


def test_a_scene_that_cannot_be_is_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(DataError, match="at most 4 different objects"):
        place(rng, [("cat", "red"), ("cat", "blue")])
    with pytest.raises(DataError, match="no dog in the scene"):
        place(rng, [("cat", "red")]).find("dog")
