"""The table of objectives says what the code does: what each loss looks at, and which settings it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from mbpo_core.config import TrainingConfig
from mbpo_core.methods import METHODS, OBJECTIVES, ObjectiveEntry, objective_passes
from mbpo_core.objectives.passes import (
    BLIND,
    BLIND_REJECTED,
    CHOSEN,
    REJECTED,
    SLIP,
    WRONG,
    WRONG_REJECTED,
    PairScores,
    Pass,
)
from mbpo_core.objectives.table import DIVERGENCES, PAIR_LOSSES, added_terms, anchor_term, image_term, likelihood_term
from mbpo_core.training.plan import TOKEN_LOSSES

EVERY = (CHOSEN, REJECTED, SLIP, WRONG, WRONG_REJECTED, BLIND, BLIND_REJECTED)
SHARED = {"dpo_beta"}
"""Settings that the losses of several objectives read, which are therefore nobody's own."""
ELSEWHERE = {"segment_weight", "blind", "second_reference"}
"""Settings of objectives that the trainer reads, and not the loss."""


class Watched(Mapping[Any, Tensor]):
    """Random log-probs of every pass, or masks of every side; writes down which are asked for."""

    def __init__(self, keys: tuple[Any, ...], seed: int, *, grad: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.values_ = {key: (-torch.rand(2, 3, generator=generator)).requires_grad_(grad) for key in keys}
        self.asked: set[Any] = set()

    def __getitem__(self, key: Any) -> Tensor:
        self.asked.add(key)
        return self.values_[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


class WatchedConfig:
    """Settings that write down which of them are read."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(self._config, name)


def scores(grad: bool = False) -> tuple[PairScores, dict[str, Watched]]:
    """Two pairs of three tokens under every pass."""
    sides = ("chosen", "rejected", "slip")
    watched = {
        "policy": Watched(EVERY, 0, grad=grad),
        "reference": Watched(EVERY, 1),
        "second": Watched(EVERY, 2),
        "divergences": Watched(EVERY, 3, grad=grad),
        "weights": Watched(sides, 4),
    }
    masks: Any = {side: torch.tensor([[True, True, True], [True, True, False]]) for side in sides}
    return PairScores(masks=masks, shift=0.1, gain_mean=0.2, gain_std=0.7, **watched), watched


def config(objective: str = "dpo", **settings: Any) -> TrainingConfig:
    more = {"second_reference": "somewhere"} if objective == "mrpo" else {}
    return TrainingConfig(objective=objective, **more, **settings)


def test_every_objective_has_a_row_a_loss_and_a_value_in_the_config() -> None:
    values = set(get_args(TrainingConfig.model_fields["objective"].annotation))
    assert values == {*OBJECTIVES, "none"}
    assert {*PAIR_LOSSES, *TOKEN_LOSSES} == set(OBJECTIVES)
    assert not set(PAIR_LOSSES) & set(TOKEN_LOSSES)
    assert set(DIVERGENCES) <= set(PAIR_LOSSES)
    used = {method.settings.get("training", {}).get("objective", "grpo") for method in METHODS.values()}
    assert used == values, "each is some method's"


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_loss_looks_at_what_its_row_says(name: str) -> None:
    """No more, which would fail in training, and no less, which would pay for passes that nobody looks at."""
    entry = OBJECTIVES[name]
    given, watched = scores()
    loss = PAIR_LOSSES[name](given, config(name))
    assert loss.shape == (2,)
    assert loss.isfinite().all()
    assert watched["policy"].asked == {*entry.passes, *entry.fixed}
    assert watched["reference"].asked == set(entry.scored)
    assert watched["second"].asked == (set(entry.scored) if name == "mrpo" else set())
    assert watched["divergences"].asked == set(DIVERGENCES.get(name, ()))
    assert watched["weights"].asked == ({one.side for one in entry.passes} if name == "chip" else set())


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_go_through_the_passes_that_have_one(name: str) -> None:
    entry = OBJECTIVES[name]
    given, watched = scores(grad=True)
    PAIR_LOSSES[name](given, config(name)).sum().backward()  # type: ignore[no-untyped-call]
    moved = {one for one, value in watched["policy"].values_.items() if value.grad is not None and value.grad.any()}
    assert moved == set(entry.passes)
    pushed = {one for one, value in watched["divergences"].values_.items() if value.grad is not None}
    assert pushed == ({REJECTED} if name == "chip" else set())


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_settings_that_a_loss_reads_are_part_of_its_identity(name: str) -> None:
    """A setting that is missing from the row would be left out of the identity: a stale result would pass for new."""
    given, _ = scores()
    asked = WatchedConfig(config(name))
    PAIR_LOSSES[name](given, asked)  # type: ignore[arg-type]
    own = set(OBJECTIVES[name].settings)
    assert asked.asked - SHARED == own - ELSEWHERE
    assert asked.asked <= set(config(name).identity())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_settings_of_other_objectives_decide_nothing(name: str) -> None:
    own = set(OBJECTIVES[name].settings)
    identity = config(name).identity()
    for other, entry in OBJECTIVES.items():
        foreign = set(entry.settings) - own
        assert not foreign & set(identity), other
    assert own - {"second_reference"} <= set(identity)
    assert {"dpo_beta", "beta", "learning_rate", "curriculum", "token_budget", "add_image"} <= set(identity)


def test_added_terms_read_settings_that_then_count() -> None:
    """On any objective: image_cap and margin decide something as soon as a term is added that reads them."""
    given, _ = scores()
    for setting, term in (("add_image", image_term), ("add_anchor", anchor_term), ("add_likelihood", likelihood_term)):
        for name in ("grpo", "dpo", "sft", "vigil"):
            settings = config(name, **{setting: 0.5})
            assert added_terms(settings) == [(0.5, term)]
            asked = WatchedConfig(settings)
            term(given, asked)  # type: ignore[arg-type]
            assert asked.asked <= set(settings.identity())
    assert added_terms(config("dpo")) == []
    assert not {"margin", "image_cap"} & set(config("dpo").identity())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_image_term_brings_its_passes(name: str) -> None:
    """What the objective has by itself stays first and as it is."""
    entry, more = objective_passes(name, image_term=False), objective_passes(name, image_term=True)
    assert entry is OBJECTIVES[name]
    assert more is not None
    assert more.passes[: len(entry.passes)] == entry.passes
    assert more.scored[: len(entry.scored)] == entry.scored
    assert {CHOSEN, WRONG} <= set(more.passes) == {*entry.passes, CHOSEN, WRONG}
    assert set(more.scored) == {*entry.scored, CHOSEN, WRONG}
    assert more.fixed == entry.fixed
    assert "rejected image" in more.needs
    assert objective_passes("none", image_term=True) is None


@pytest.mark.parametrize("name", OBJECTIVES)
def test_chosen_under_the_clean_image_comes_first(name: str) -> None:
    """What is weighed by token, and kept for later updates, is the first look; metrics want chosen there."""
    assert OBJECTIVES[name].passes[0] == CHOSEN
    assert CHOSEN in OBJECTIVES[name].scored


@pytest.mark.parametrize(
    ("name", "needs", "counts"),
    [
        ("sft", "", [1, 1, 1]),
        ("dpo", "rejected response", [2, 1, 2]),
        ("image", "rejected image", [2, 2, 2]),
        ("mfpo", "rejected response, rejected image", [3, 2, 3]),
        ("vdpo", "rejected response", [2, 1, 2, 2]),
        ("povid", "rejected response, rejected image", [3, 1, 4]),
        ("p2dpo", "rejected response, rejected image", [3, 2, 3]),
        ("vigil", "rejected response", [3, 2, 3]),
    ],
)
def test_needs_and_costs_follow_from_the_passes(name: str, needs: str, counts: list[int]) -> None:
    """Passes with gradient and the prompts they share, those without (vdpo), and those of the reference.

    POVID's reference reads one more: what it would have said.
    """
    assert OBJECTIVES[name].needs == needs
    assert [int(number) for number in re.findall(r"\d+", OBJECTIVES[name].cost)] == counts


def test_a_response_under_the_rejected_image_alone_needs_both() -> None:
    assert ObjectiveEntry("", "", (WRONG_REJECTED,)).needs == "rejected response, rejected image"
    assert ObjectiveEntry("", "", (Pass("clean", "chosen"),), fixed=(BLIND_REJECTED,)).needs == "rejected response"
