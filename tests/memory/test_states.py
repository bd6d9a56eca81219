"""Weights, gradients and optimizer: counted in a DeepSpeed engine, and against the numbers of the ZeRO paper."""

from __future__ import annotations

import gc

import pytest

from benchmarks.meter import Meter
from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.memory.architecture import read_architecture
from mbpo_core.memory.states import States, states_of
from mbpo_core.models.policy import load_policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.world import join_world

GB = 1e9
SCALARS = 4096
"""Bytes of AdamW's step counts and DeepSpeed's flags."""


def size(states: States) -> dict[str, float]:
    """Bytes by term; the weights without what is gathered."""
    return {
        "weights": states.weights()[0].size,
        "gradients": states.gradients().size,
        "optimizer": states.optimizer().size,
    }


@pytest.mark.parametrize(("stage", "total"), [(1, 31.4), (2, 16.6), (3, 1.88)])
def test_the_numbers_of_the_zero_paper(stage: int, total: float) -> None:
    """7.5 billion parameters over 64 devices, figure 1; stage 2 holds a second partition while one is added to it."""
    states = States(7_500_000_000, 7_500_000_000, 0, processes=64, width=2, stage=stage)
    second = 2 * 7.5 / 64 if stage == 2 else 0.0
    assert sum(size(states).values()) / GB - second == pytest.approx(total, rel=0.005)


@pytest.mark.parametrize(
    ("stage", "dtype"), [(0, "float32"), (1, "float32"), (2, "float32"), (1, "bfloat16"), (2, "bfloat16")]
)
def test_an_engine_holds_exactly_what_the_formula_says(stage: int, dtype: str) -> None:
    settings = PolicyConfig(model="demo:absolute", device="cpu", dtype=dtype)
    folder = resolve_model(settings)
    config = TrainingConfig(zero_stage=stage, freeze="vision")
    width = 4 if dtype == "float32" else 2
    states = states_of(read_architecture(folder), config, width=width, processes=1)
    expected = size(states)
    policy = load_policy(folder, settings)
    buffers = sum(buffer.nbytes for buffer in policy.model.buffers())
    meter = Meter()
    with meter:
        for tensor in (*policy.model.parameters(), *policy.model.buffers()):
            tensor.detach()
        assert meter.now == expected["weights"] + buffers
        engine = TrainingEngine(policy, config, join_world(policy.device))
        gc.collect()
        held = expected["weights"] + expected["optimizer"] + buffers
        assert meter.now == pytest.approx(held, abs=SCALARS)
        for _ in range(2):
            engine.backward(sum(p.sum() for p in policy.model.parameters() if p.requires_grad) * 1e-3)
        kept = meter.now - held - (states.bucket().size if stage == 1 else 0)
        assert kept == pytest.approx(expected["gradients"], abs=SCALARS)
        meter.mark()
        engine.step(1e-6)
        update = sum(term.size for term in states.update(on_cpu=True))
        assert meter.peak - held <= update + SCALARS
        assert meter.peak - held >= 0.9 * update
        engine.close()


def test_sharing_and_offloading_take_what_they_say() -> None:
    plain = {"parameters": 1000, "trained": 800, "largest": 300, "width": 2}
    whole = size(States(**plain, processes=4, stage=2))
    assert whole == {"weights": 2000, "gradients": 2 * 800 / 4, "optimizer": 12 * 800 / 4}
    shared = States(**plain, processes=4, stage=3)
    assert size(shared)["weights"] == 2000 / 4
    # A tenth is live, but for the largest tensor; another tenth is fetched ahead.
    assert shared.weights()[1].size == 2 * (300 + 100)
    assert States(**plain, processes=1, stage=3).weights()[1].size == 0
    away = States(**plain, processes=4, stage=3, offload="all")
    assert size(away) == {"weights": 0, "gradients": 0, "optimizer": 0}
    # Moments, float32 weights and gradients, the rounded weights, and the policy's own share.
    assert away.host() == (8 + 4 + 4 + 2) * 800 / 4 + 2000 / 4
