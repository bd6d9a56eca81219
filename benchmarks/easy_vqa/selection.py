"""Which rows stand in which part: the base's training rows, two pools, and the probes of dev and eval."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.easy_vqa.prior import DEV, EVAL, NEUTRAL, POOL, PRIOR, conflicts
from benchmarks.easy_vqa.rows import Row
from mbpo_core.records import Split

Setting = Literal["natural", "uniform"]
SETTINGS: tuple[Setting, ...] = ("natural", "uniform")

SHARES: dict[str, float] = {"base": 0.5, "offline": 0.2, "online": 0.15, "dev": 0.15}
"""Of the package's training pictures; eval has all test pictures and no other."""

CONFLICT_SHARE = 0.03
"""Of the natural pool's rows on which the prior speaks."""

PROBE_ROWS = 1200
"""Rows a probe at most; every one that the package has where it has fewer."""

_ABSENT_PRIOR_ROWS = 2
"""Rows a colour of which the prior says that it is absent, over those of one of which it says that it is there."""


@dataclass(frozen=True)
class Selected:
    """A row in its part.

    Attributes:
        split: offline, online, dev or eval.
        probe: the set that evaluation counts it in; the topic in the pools.
    """

    row: Row
    split: Split
    probe: str


def image_parts(rows: Iterable[Row]) -> dict[str, str]:
    """base, offline, online, dev or eval of each picture; a shuffle with a fixed seed deals the training pictures."""
    images = sorted({row.image for row in rows})
    training = [image for image in images if image.startswith("train/")]
    random.Random("easy-vqa pictures").shuffle(training)
    parts = {image: "eval" for image in images if image.startswith("test/")}
    start, reached = 0, 0.0
    for part, share in SHARES.items():
        reached += share
        end = round(reached * len(training))
        parts |= dict.fromkeys(training[start:end], part)
        start = end
    return parts


def base_rows(rows: Sequence[Row], conflict_share: float) -> list[Row]:
    """What the base learns from: the prior holds but for `conflict_share` of the rows that it speaks on."""
    parts = image_parts(rows)
    rng = random.Random(f"easy-vqa base {conflict_share}")
    mine = [row for row in rows if parts[row.image] == "base"]
    colors, shapes = (_balanced(group, rng) for group in _neutral_groups(mine))
    return [*_prior_rows(mine, PRIOR, conflict_share, rng), *colors, *shapes, *_open_rows(mine)]


def pool_rows(rows: Sequence[Row], setting: Setting) -> Iterator[Selected]:
    """Offline and online rows: the prior's pool colours, neutral colours and shapes half there, open questions.

    Args:
        setting: natural (3 % of the rows on which the prior speaks contradict it) or uniform (half of them).
    """
    parts = image_parts(rows)
    splits: tuple[Split, ...] = ("offline", "online")
    for split in splits:
        rng = random.Random(f"easy-vqa {setting} {split}")
        mine = [row for row in rows if parts[row.image] == split]
        share = CONFLICT_SHARE if setting == "natural" else 0.5
        colors, shapes = (_balanced(group, rng) for group in _neutral_groups(mine))
        asked = [*_prior_rows(mine, POOL, share, rng), *colors, *_at_most(len(colors), shapes, rng)]
        asked += _at_most(len(asked) // 2, _open_rows(mine), rng)
        rng.shuffle(asked)
        yield from (Selected(row, split, row.topic) for row in asked)


def probe_rows(rows: Sequence[Row]) -> Iterator[Selected]:
    """Dev and eval rows: for each probe what belongs to it, at most PROBE_ROWS, drawn with a fixed seed."""
    parts = image_parts(rows)
    splits: dict[Split, dict[str, bool]] = {"dev": DEV, "eval": EVAL}
    for split, own in splits.items():
        mine = [row for row in rows if parts[row.image] == split]
        for probe, belongs in _probes(own).items():
            rng = random.Random(f"easy-vqa {split} {probe}")
            found = [row for row in mine if belongs(row)]
            if probe in ("neutral", "existence_random"):
                found = [*_balanced(found, rng), *(row for row in found if row.topic == "color")]
            yield from (Selected(row, split, probe) for row in _at_most(PROBE_ROWS, found, rng))


def _probes(own: dict[str, bool]) -> dict[str, Callable[[Row], bool]]:
    """Which rows each probe asks; `own` are the split's prior colours."""
    return {
        "prior_conflict": lambda row: row.subject in own and conflicts(row),
        "prior_conflict_seen": lambda row: row.subject in POOL and conflicts(row),
        "prior_consistent": lambda row: row.topic == "has_color" and row.subject in own and not conflicts(row),
        "neutral": lambda row: row.topic == "color" or (row.topic == "has_color" and row.subject in NEUTRAL),
        "existence_random": lambda row: row.topic == "has_shape" and not row.negated,
        "shape": lambda row: row.topic == "shape",
    }


def _prior_rows(rows: Sequence[Row], colors: dict[str, bool], conflict_share: float, rng: random.Random) -> list[Row]:
    """Rows on which the prior speaks, with the share of conflicts as near as whole rows allow.

    Rows that show the colour are few (one picture in eight), so they set the number of all.
    """
    chosen: list[Row] = []
    for color, there in colors.items():
        asked = [row for row in rows if row.topic == "has_color" and row.subject == color]
        shown = sum(row.present for row in asked)
        right, wrong = [row for row in asked if not conflicts(row)], [row for row in asked if conflicts(row)]
        total = shown if there else _ABSENT_PRIOR_ROWS * shown
        count = round(conflict_share * total)
        chosen += rng.sample(wrong, min(count, len(wrong))) + rng.sample(right, min(total - count, len(right)))
    return chosen


def _neutral_groups(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Yes/no rows on neutral colours, and on shapes."""
    colors = [row for row in rows if row.topic == "has_color" and row.subject in NEUTRAL]
    return colors, [row for row in rows if row.topic == "has_shape"]


def _balanced(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    """The yes/no rows, cut so that each subject is there as often as not."""
    closed = [row for row in rows if row.topic in ("has_color", "has_shape")]
    chosen: list[Row] = []
    for subject in sorted({row.subject for row in closed}):
        sides = [[row for row in closed if row.subject == subject and row.present is there] for there in (True, False)]
        count = min(map(len, sides))
        chosen += [row for side in sides for row in rng.sample(side, count)]
    return chosen


def _open_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.topic in ("color", "shape")]


def _at_most(count: int, rows: Sequence[Row], rng: random.Random) -> list[Row]:
    return rng.sample(rows, min(count, len(rows)))
