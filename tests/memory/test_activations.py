"""Formulas against what autograd really keeps: the storages of saved tensors, counted byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from mbpo_core.config import PolicyConfig
from mbpo_core.memory.activations import (
    ALL,
    NOTHING,
    Batch,
    Learns,
    logits,
    mask,
    saved_after_layers,
    saved_by_layer,
)
from mbpo_core.memory.architecture import Architecture, read_architecture
from mbpo_core.models.layout import Pack, Visible, lay_out
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.projection import Head, target_logprobs
from tests.models.tiny import TINY

WIDTHS = {"float32": 4, "bfloat16": 2}
PROMPT, COMPLETION, GROUP = 64, 16, 4


def saved_bytes(model: Any, run: Callable[[], object]) -> int:
    """Bytes of all storages that a forward pass keeps, the model's own left out."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address is not taken again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def language_pass(policy: Policy, kind: str) -> tuple[Batch, Callable[[], object]]:
    """The language model over packed or plain rows of random embeddings, and their shape."""
    family, model = policy.family, policy.model
    axes = len(family.positions(policy.prepare("A?", [])))
    prompt = Visible([5] * PROMPT, torch.arange(PROMPT)[None].expand(axes, -1), PROMPT)
    several = [[6] * COMPLETION] * GROUP
    packs = [Pack(prompt, [one]) for one in several] if kind == "plain" else [Pack(prompt, several)] * 2
    rows = lay_out(policy, packs, by_segment=kind == "segments")
    language = family.language_model(model)
    width = language.config.hidden_size
    embeddings = torch.randn(*rows.input_ids.shape, width, dtype=policy.dtype, requires_grad=True)
    positions = rows.position_ids[0] if axes == 1 else rows.position_ids
    more = {} if rows.segments is None else {"segments": rows.segments}

    def run() -> object:
        return language(
            inputs_embeds=embeddings,
            attention_mask=rows.attention_mask,
            position_ids=positions,
            use_cache=False,
            **more,
        ).last_hidden_state

    return Batch([pack.segments for pack in packs], kind == "segments"), run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_a_language_model_keeps_what_the_formula_says(family: str, dtype: str, tmp_path: Path) -> None:
    folder = TINY[family](tmp_path / "model")
    tower, width = read_architecture(folder).language, WIDTHS[dtype]
    for learns in (NOTHING, ALL):
        policy = load_policy(folder, PolicyConfig(device="cpu", dtype=dtype))
        if learns is ALL:
            policy.unfreeze("vision")
        for kind in ("plain", "mask", "segments"):
            if family == "llava" and kind != "plain":
                continue  # its single key head is repeated without a copy, as no released model's is
            batch, run = language_pass(policy, kind)
            expected = tower.layers * saved_by_layer(tower, batch.tokens, width, learns, batch)
            expected += saved_after_layers(tower, batch.tokens, width, learns)
            # The mask's two bools a place are gone by then; segments have small masks and normalisers of their own.
            expected += mask(batch, width) * width / (width + 2)
            close = 0.01 if kind == "segments" else 0
            assert saved_bytes(policy.model, run) == pytest.approx(expected, rel=close, abs=0), (learns, kind)


@pytest.mark.parametrize("learns", [NOTHING, ALL])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen2_vl"])
def test_a_layer_of_the_tower_keeps_what_the_formula_says(family: str, learns: Learns, tmp_path: Path) -> None:
    """The difference between towers of two and of four layers."""
    folder = TINY[family](tmp_path / "model")
    tower = read_architecture(folder).vision
    two, four = (tower_bytes(folder, family, layers, learns) for layers in (2, 4))
    patches = 36 + 1 if family == "llava" else 144
    assert (four - two) / 2 == pytest.approx(saved_by_layer(tower, patches, 4, learns), rel=0.02)


def tower_bytes(folder: Path, family: str, layers: int, learns: Learns) -> int:
    """What a tower of so many layers keeps of one picture, pixels asking for gradients."""
    from PIL import Image

    config = AutoConfig.from_pretrained(folder)
    setattr(config.vision_config, "num_hidden_layers" if family == "llava" else "depth", layers)
    config.vision_config.fullatt_block_indexes = list(range(layers))
    model = AutoModelForImageTextToText.from_config(config).eval().requires_grad_(learns is ALL)
    policy = replace(load_policy(folder, PolicyConfig(device="cpu")), model=model)
    picture = policy.family.read(Image.new("RGB", (48, 48)))
    picture = replace(picture, pixel_values=picture.pixel_values.clone().requires_grad_())
    return saved_bytes(model, lambda: policy.family.encode(model, [picture]))


def architecture(vocabulary: int, width: int) -> Architecture:
    """One of which only the head matters."""
    from tests.memory.towers import LLAMA

    return Architecture("llava", {}, 0, vocabulary, False, replace(LLAMA, width=width), LLAMA, 1)


@pytest.mark.parametrize("limit_mib", [0.25, 64.0])
@pytest.mark.parametrize("trained", [True, False])
def test_logits_take_no_more_than_the_formula_says(limit_mib: float, trained: bool) -> None:
    from benchmarks.meter import Meter

    places, vocabulary, width = 64, 5000, 32
    hidden = torch.randn(places, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=trained)
    targets = torch.arange(places) + 10
    meter = Meter()
    with meter:
        _ = hidden + 0, weight + 0, targets + 0
        before = meter.now
        meter.mark()
        target_logprobs(hidden, targets, Head(weight, None, [3], limit_mib), 1.0)[0].sum().backward()
    expected = logits(architecture(vocabulary, width), places, 4, limit_mib, grad=True, trained=trained)
    assert 0.7 * expected < meter.peak - before < 1.1 * expected
