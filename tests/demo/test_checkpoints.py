"""The shipped checkpoints: small, loadable, and with the prior that their name says."""

from __future__ import annotations

from pathlib import Path

import pytest

import mbpo_core.demo
from mbpo_core.demo.measure import Score, measure
from mbpo_core.demo.pools import DemoCounts, demo_samples

ASSETS = Path(mbpo_core.demo.__file__).parent / "assets"
PROBES = DemoCounts(offline=0, online=0, eval_probe=0, eval_small_probe=0, dev_probe=60, dev_small_probe=0)


@pytest.fixture(scope="module", params=["absolute", "soft"])
def checkpoint(request: pytest.FixtureRequest) -> tuple[str, dict[str, Score]]:
    return request.param, measure(ASSETS / request.param, list(demo_samples("uniform", 0, PROBES)))


def test_files_are_small() -> None:
    for name in ("absolute", "soft"):
        assert sum(file.stat().st_size for file in (ASSETS / name).iterdir()) <= 8e6


def test_prior(checkpoint: tuple[str, dict[str, Score]]) -> None:
    name, scores = checkpoint
    assert scores["prior_consistent"].right >= 0.95
    held_out, seen = scores["prior_conflict"], scores["prior_conflict_seen"]
    if name == "absolute":
        assert held_out.says_prior >= 0.9
        assert seen.says_prior >= 0.9
    else:
        assert 0.35 <= (held_out.right + seen.right) / 2 <= 0.8


def test_sees(checkpoint: tuple[str, dict[str, Score]]) -> None:
    _, scores = checkpoint
    assert scores["neutral"].right >= 0.9
    assert scores["existence_random=Yes"].right >= 0.75
    assert scores["existence_random=No"].right >= 0.75
