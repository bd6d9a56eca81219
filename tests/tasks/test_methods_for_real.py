"""Four methods on one store, with the tiny model: each runs to its report, and what they share is made once."""

from __future__ import annotations

import pytest

from flows.paths import config_file
from flows.pipeline import follow_method
from mbpo_core.config import load_config
from mbpo_core.store import Store
from tasks.run import Run

METHODS = ("mbpo", "dpo", "mdpo", "mfpo")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    store = Store(tmp_path_factory.mktemp("runs"))
    made = {}
    for method in METHODS:
        config = load_config(config_file("smoke"), [f"method={method}", f"run={method}"])
        made[method] = Run(config, store)
        follow_method(made[method])
    return made


def test_what_does_not_differ_is_made_once(runs: dict[str, Run]) -> None:
    done = {name: [plan.key for plan in run.plans if plan.status != "cached"] for name, run in runs.items()}
    assert done == {
        "mbpo": ["samples", "negatives", "pairs", "rollouts/0", "training/0", "evaluation", "report"],
        "dpo": ["training/0", "evaluation", "report"],
        "mdpo": ["negatives/images", "training/0", "evaluation", "report"],
        "mfpo": ["negatives/images", "training/0", "evaluation", "report"],
    }


@pytest.mark.parametrize("method", ["mdpo", "mfpo"])
def test_images_are_made_for_every_pair(runs: dict[str, Run], method: str) -> None:
    run = runs[method]
    pairs = list(run.store.reader(run.latest("pairs")).rows())
    images = list(run.store.reader(run.latest("negatives/images")).rows())
    assert [row["sample_id"] for row in images] == [row["sample_id"] for row in pairs]
    for image, pair in zip(images, pairs, strict=True):
        assert image["chosen"] == pair["chosen"][0]["content"][0]["text"]
        assert image["rejected"] == pair["rejected"][0]["content"][0]["text"]
        assert image["rejected_images"] != pair["rejected_images"]
        assert bool(image["masks"]) == (method == "mfpo")


def test_the_image_side_is_trained(runs: dict[str, Run]) -> None:
    first = {name: next(iter(run.store.reader(run.latest("training/0")).rows())) for name, run in runs.items()}
    assert first["dpo"]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert first["mdpo"]["loss"] == pytest.approx(3 * 0.693147, abs=1e-4)
    assert first["mfpo"]["loss"] == pytest.approx(3 * 0.693147, abs=1e-4)
    assert [first[name]["wrong_image_reward"] is None for name in METHODS] == [True, True, False, False]
    # The same pairs, one prompt more a pair.
    assert first["mdpo"]["positions"] / first["mdpo"]["groups_offline"] > (
        1.5 * first["dpo"]["positions"] / first["dpo"]["groups_offline"]
    )
