"""docs/evaluation.md names every metric that the code can produce, with its unit and its direction."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import get_args

from mbpo_core.evaluation.amber import ASPECTS, DESCRIPTION
from mbpo_core.evaluation.language_prior import VILP_PROBES
from mbpo_core.evaluation.metrics import HEADLINE, metrics_for
from mbpo_core.evaluation.mmhal import mmhal_scores
from mbpo_core.records import Kind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
ARROWS = {"higher": "↑", "lower": "↓", "": "·"}
UNITS = {"share": "", "words": "in words", "nats": "in nats per token"}


def expanded(name: str) -> list[str]:
    """ "a{b,c}" -> ab, ac."""
    parts = [part[1:-1].split(",") if part.startswith("{") else [part] for part in re.split(r"(\{[^}]*\})", name)]
    return ["".join(pick) for pick in product(*parts)]


def documented() -> dict[str, tuple[str, str]]:
    """Metric -> (what the page says of it, arrow)."""
    found = {}
    for name, text, arrow in re.findall(r"^\| `([^`]+)` \| (.*) \| (.) \|$", PAGE.read_text(encoding="utf-8"), re.M):
        for single in expanded(name):
            assert single not in found, f"{single} stands there twice"
            found[single] = text, arrow
    return found


def test_every_metric_is_documented_as_it_is() -> None:
    probes = (DESCRIPTION, *ASPECTS, *VILP_PROBES, "vlind", "some_probe")
    metrics = metrics_for([(kind, probe) for kind in get_args(Kind) for probe in probes])
    ours = documented()
    names = {metric.name for metric in metrics} | set(mmhal_scores([{"question_type": "x", "judgement": "Rating: 1"}]))
    others = {"some_probe_accuracy", *(f"{probe}_accuracy" for probe in (DESCRIPTION, *VILP_PROBES, "vlind"))}
    assert names - {*others, "mmhal_score_x"} == set(ours) - {"<probe>_accuracy"}
    for metric in metrics:
        text, arrow = ours.get(metric.name, ("", ARROWS["higher"]))
        assert arrow == ARROWS[metric.better], metric.name
        assert UNITS[metric.unit] in text, metric.name


def test_headline_metrics_exist() -> None:
    assert set(HEADLINE) <= set(documented())
