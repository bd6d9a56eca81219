"""Packed rows say the same as plain ones and as the model's own forward; when they are used, and when given up."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ConfigError
from mbpo_core.models import attention, layout, scoring
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.packing import Packing, PackingWarning, choose_packing, obstacle_to_packing
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs
from tests.models.oracle import own_logprobs

Scores = list[list[Tensor]]


def _groups(policy: Policy, pictures: Sequence[Image.Image]) -> list[PromptGroup]:
    """Prompts of uneven lengths with none, one and two images (one of them twice), uneven completions."""
    generator = torch.Generator().manual_seed(1)
    allowed = sorted(set(range(len(policy.tokenizer))) - set(policy.banned_token_ids))

    def random(length: int) -> list[int]:
        return [allowed[i] for i in torch.randint(len(allowed), (length,), generator=generator).tolist()]

    answers = [policy.encode_completion(answer) for answer in ("The banana is yellow.", "Yes", "A")]
    return [
        PromptGroup(policy.prepare("What color is the banana?", pictures[:1]), [*answers, [policy.eos_token_ids[0]]]),
        PromptGroup(
            policy.prepare("Yes?", [pictures[1], pictures[0]]), [random(60), random(3), random(50), random(55)]
        ),
        PromptGroup(policy.prepare("the dog, the cat", pictures[2:3]), [answers[0]]),
        PromptGroup(policy.prepare("1 2 3", []), [random(25), random(1), random(20), random(30), random(2)]),
    ]


def _halves(groups: Sequence[PromptGroup]) -> Packing:
    """Charges for pairs so much that the long completions of the second group are dealt to two or three rows."""
    lengths = [len(tokens) for tokens in groups[1].completions]
    dear = (Packing("auto", token_cost=float(cost), pair_cost=1.0, checked=True) for cost in range(10, 1000, 10))
    return next(p for p in dear if 1 < len(p.split(len(groups[1].prompt.token_ids), lengths)) < len(lengths))


@pytest.mark.parametrize("name", ["dense", "segments", "auto", "halves"])
def test_packed_equals_plain_and_the_models_own_forward(
    family_policy: Policy, pictures: list[Image.Image], name: str
) -> None:
    """Log-probs within 1e-5 and the gradient of every parameter within 1e-4, relative, both ways."""
    family_policy.unfreeze("none")
    groups = _groups(family_policy, pictures)
    can = family_policy.packing.segmented
    eager = family_policy.model.config.get_text_config()._attn_implementation == "eager"
    assert can == (not eager and not family_policy.family.own_masks)
    family_policy.packing = {
        "dense": Packing("packed", checked=True),
        "segments": Packing("packed", segmented=can, checked=True),
        "auto": replace(family_policy.packing, checked=True),
        "halves": _halves(groups),
    }[name]
    if name == "segments" and can:
        shapes = [(len(g.prompt.token_ids), *map(len, g.completions)) for g in groups]
        assert family_policy.packing.by_segment(shapes), "else this tests something else"
    ours, by_ours = _with_gradients(family_policy, groups, lambda: group_logprobs(family_policy, groups, grad=True))
    family_policy.packing = Packing("plain")
    plain, by_plain = _with_gradients(family_policy, groups, lambda: group_logprobs(family_policy, groups, grad=True))
    own, by_own = _with_gradients(family_policy, groups, lambda: own_logprobs(family_policy, groups))
    for other, by_other in ((plain, by_plain), (own, by_own)):
        _assert_close(ours, other)
        _assert_gradients_close(by_ours, by_other)
    _assert_close(plain, own)
    _assert_gradients_close(by_plain, by_own)


@pytest.mark.parametrize("blind", ["mask", "mean", "black", "drop"])
def test_packed_equals_plain_without_sight(family_policy: Policy, pictures: list[Image.Image], blind: Any) -> None:
    groups = _groups(family_policy, pictures)
    seen = group_logprobs(family_policy, groups)
    segmented = replace(family_policy.packing, mode="packed", checked=True)
    for packing in (Packing("packed", checked=True), segmented, _halves(groups)):
        family_policy.packing = packing
        packed = group_logprobs(family_policy, groups, blind=blind, temperature=0.7)
        family_policy.packing = Packing("plain")
        _assert_close(packed, group_logprobs(family_policy, groups, blind=blind, temperature=0.7))
    assert (packed[0][0] - seen[0][0]).abs().max() > 1e-2


def test_splits_are_chosen_by_cost() -> None:
    cheap_pairs = Packing("auto", token_cost=100.0, pair_cost=0.01)
    assert cheap_pairs.split(50, [3, 5, 2, 4]) == [[0, 1, 2, 3]]
    dear_pairs = Packing("auto", token_cost=1.0, pair_cost=1.0)
    # One row: 180 + 180^2 = 32,580; two: 2 (120 + 120^2) = 29,040; four causal ones: 4 (90 + 90^2 / 2) = 16,560.
    assert dear_pairs.split(60, [30] * 4) == [[0], [1], [2], [3]]
    # With dearer tokens: 90 (90 + 150) + 90^2 / 2 + 150^2 = 48,150, less than two and two (50,400), one row (48,600).
    assert Packing("auto", token_cost=90.0, pair_cost=1.0).split(60, [30] * 4) == [[0], [1, 2, 3]]
    # Segment by segment one row pays for 60^2 / 2 + 4 (30 + 40) 90 = 27,000 pairs, and for each token once.
    by_segment = Packing("auto", token_cost=90.0, pair_cost=1.0, segmented=True)
    assert by_segment.cost((60, 30, 30, 30, 30)) == 90 * 180 + 27_000
    assert by_segment.split(60, [30] * 4) == [[0, 1, 2, 3]]
    assert by_segment.by_segment([(60, 30, 30, 30, 30)])
    assert not by_segment.by_segment([(60, 3, 3)])
    assert dear_pairs.split(5, [100] * 4) == [[0], [1], [2], [3]]
    assert dear_pairs.split(1000, [10] * 8) == [list(range(8))], "a long prompt is not repeated for short answers"
    for mode, expected in (("plain", [[0], [1], [2]]), ("packed", [[0, 1, 2]])):
        assert Packing(mode, token_cost=1.0, pair_cost=1.0).split(5, [100] * 3) == expected  # type: ignore[arg-type]
    assert Packing("packed").split(9, [4]) == [[0]]
    assert Packing("packed").split(9, []) == []


def test_splits_keep_every_completion_in_order_and_cost_least() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        count = int(torch.randint(1, 9, (1,), generator=generator))
        lengths = torch.randint(1, 120, (count,), generator=generator).tolist()
        prompt = int(torch.randint(1, 100, (1,), generator=generator))
        packing = Packing("auto", token_cost=50.0, pair_cost=1.0)
        rows = packing.split(prompt, lengths)
        assert [index for row in rows for index in row] == list(range(count))
        assert all(rows)
        total = sum(packing.cost((prompt, *(lengths[i] for i in row))) for row in rows)
        assert total <= packing.cost((prompt, *lengths))
        assert total <= sum(packing.cost((prompt, length)) for length in lengths)


def test_costs_count_the_language_models_layers(family_policy: Policy) -> None:
    text = family_policy.model.config.get_text_config()
    width, inner = text.hidden_size, text.intermediate_size
    shared = text.num_key_value_heads / text.num_attention_heads
    heads = text.num_attention_heads * (getattr(text, "head_dim", None) or width // text.num_attention_heads)
    mlp = 3 * width * inner
    if experts := getattr(text, "num_experts_per_tok", 0):
        mlp = 3 * width * text.moe_intermediate_size * experts + width * text.num_experts  # and the router
    layer = 2 * width * heads * (1 + shared) + mlp
    assert family_policy.packing.token_cost == 2 * text.num_hidden_layers * layer
    assert family_policy.packing.pair_cost == 4 * text.num_hidden_layers * heads


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ({"sliding_window": 64}, "sliding window of 64"),
        ({"sliding_window": 64, "use_sliding_window": True}, "sliding window of 64"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layers of the type sliding_attention"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "layers of the type linear_attention"),
        ({"ssm_state_size": 16}, "recurrent layers"),
        ({"sliding_window": 64, "use_sliding_window": False}, ""),
        ({"sliding_window": 64, "layer_types": ["full_attention"] * 2}, ""),
        ({"sliding_window": None}, ""),
    ],
)
def test_models_that_cannot_be_packed_go_plain(settings: dict[str, Any], obstacle: str) -> None:
    config = SimpleNamespace(model_type="tiny", hidden_size=8, num_attention_heads=2, num_hidden_layers=2, **settings)
    language = nn.Module()
    language.config = config  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("error", PackingWarning)
        assert choose_packing("plain", language, where="here").mode == "plain"
        if not obstacle:
            assert choose_packing("auto", language, where="here").mode == "auto"
            assert choose_packing("packed", language, where="here").mode == "packed"
            return
    with pytest.warns(PackingWarning, match=obstacle):
        assert choose_packing("auto", language, where="here").mode == "plain"
    with pytest.raises(ConfigError, match=obstacle):
        choose_packing("packed", language, where="here")


def test_a_folder_with_a_sliding_window_loads_plain(family_folder: Path, tmp_path: Path) -> None:
    """Unless its family makes the window's mask from positions."""
    policy = load_policy(family_folder, PolicyConfig(device="cpu"))
    if policy.family.own_masks:
        assert obstacle_to_packing(policy.family.language_model(policy.model).config)
        assert policy.packing.mode == "auto"
        return
    text = policy.model.config.get_text_config()
    text.sliding_window, text.use_sliding_window = 32, True
    text.layer_types = ["full_attention", "sliding_attention"]
    policy.model.save_pretrained(tmp_path)
    policy.processor.save_pretrained(tmp_path)
    with pytest.warns(PackingWarning, match="sliding"):
        assert load_policy(tmp_path, PolicyConfig(device="cpu")).packing.mode == "plain"
    with pytest.raises(ConfigError, match="sliding"):
        load_policy(tmp_path, PolicyConfig(device="cpu", group_packing="packed"))


@pytest.mark.parametrize("mode", ["auto", "packed"])
def test_a_wrong_mask_is_noticed_and_rows_go_plain(
    family_policy: Policy, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    groups = _groups(family_policy, pictures)
    family_policy.packing = Packing("plain")
    plain = group_logprobs(family_policy, groups)
    whole = layout.block_mask
    monkeypatch.setattr(layout, "block_mask", lambda owner, dtype: whole(torch.zeros_like(owner), dtype))
    family_policy.packing = Packing(mode)
    with pytest.warns(PackingWarning, match=r"rows are not packed.*differ by .* nats"):
        found = group_logprobs(family_policy, groups)
    for rows, others in zip(found, plain, strict=True):
        assert all(torch.equal(row, other) for row, other in zip(rows, others, strict=True))
    assert (family_policy.packing.mode, family_policy.packing.checked) == ("plain", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group_logprobs(family_policy, groups)


def test_wrong_segments_are_noticed_too(
    family_folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first groups would have attended under the mask, which is right."""
    policy = load_policy(family_folder, PolicyConfig(device="cpu"))
    if policy.family.own_masks:
        pytest.skip("it attends under dense masks alone")
    right = attention.Segments.mask
    monkeypatch.setattr(attention.Segments, "mask", lambda *given: torch.zeros_like(right(*given)))
    with pytest.warns(PackingWarning, match=r"rows are not packed.*differ by .* nats"):
        group_logprobs(policy, _groups(policy, pictures))
    assert policy.packing.mode == "plain"


def test_positions_that_run_on_are_noticed(
    family_policy: Policy, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that counts positions by itself, and not from those it is given, must not be packed."""
    hidden = family_policy.family.hidden

    def counting(model: Any, features: Any, *, position_ids: Tensor, **rest: Any) -> Tensor:
        return hidden(
            model, features, position_ids=torch.arange(position_ids.shape[-1]).expand_as(position_ids), **rest
        )

    monkeypatch.setattr(family_policy.family, "hidden", counting)
    with pytest.warns(PackingWarning, match="differ by"):
        group_logprobs(family_policy, _groups(family_policy, pictures))


def test_a_sound_model_is_checked_once_and_stays_packed(
    family_policy: Policy, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int]] = []
    lay_out = scoring.lay_out
    monkeypatch.setattr(
        scoring,
        "lay_out",
        lambda p, packs, way=None: passes.append([len(k.completions) for k in packs]) or lay_out(p, packs, way),
    )
    groups = _groups(family_policy, pictures)
    family_policy.packing.token_cost = 1e6  # a row pays for tokens alone, so auto packs every group whole
    assert not family_policy.packing.checked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group_logprobs(family_policy, groups[2:3])
        assert passes == [[1]], "nothing is packed, so there is nothing to compare"
        assert not family_policy.packing.checked
        group_logprobs(family_policy, groups, grad=True)
        packed = [[2, 2]] * (2 if family_policy.packing.segmented else 1)
        assert passes[1:] == [[1, 1, 1, 1], *packed, [4, 4, 1, 5]], "two groups every way, then all of them"
        group_logprobs(family_policy, groups)
        assert len(passes) == 4 + len(packed)
    assert family_policy.packing.mode == "auto"
    assert family_policy.packing.checked


@pytest.mark.parametrize("mode", ["packed", "plain"])
def test_every_distinct_image_enters_the_tower_once(
    family_policy: Policy, pictures: list[Image.Image], mode: Any
) -> None:
    """Also where rows are plain; repeating the images instead gives the same bits."""
    groups = _groups(family_policy, pictures)
    family_policy.packing = Packing(mode, checked=True)
    entered = _watch_patches(family_policy)
    family_policy.family.encode(family_policy.model, [groups[0].prompt.images[0]])
    one = entered.pop()
    shared = group_logprobs(family_policy, [groups[0], groups[0]])
    assert entered == [one]
    entered.clear()
    group_logprobs(family_policy, groups)
    distinct = {image.key: image for group in groups for image in group.prompt.images}
    assert len(distinct) == 3
    seen = entered.pop()
    family_policy.family.encode(family_policy.model, list(distinct.values()))
    assert [seen] == entered

    entered.clear()
    apart = [replace(groups[0], prompt=_unnamed(groups[0])) for _ in range(2)]
    repeated = group_logprobs(family_policy, apart)
    assert entered == [2 * one]
    for rows, others in zip(shared, repeated, strict=True):
        assert all(torch.equal(row, other) for row, other in zip(rows, others, strict=True))


def test_one_encoding_for_all_completions_is_bit_equal_to_repeating(
    family_policy: Policy, pictures: list[Image.Image]
) -> None:
    """Plain rows: K completions of one prompt against K prompts with an image each."""
    group = _groups(family_policy, pictures)[1]
    family_policy.packing = Packing("plain")
    entered = _watch_patches(family_policy)
    (shared,) = group_logprobs(family_policy, [group])
    repeated = group_logprobs(
        family_policy, [PromptGroup(_unnamed(group), [completion]) for completion in group.completions]
    )
    assert entered[1] == len(group.completions) * entered[0]
    assert all(torch.equal(row, other) for row, (other,) in zip(shared, repeated, strict=True))


def _unnamed(group: PromptGroup) -> Any:
    """The group's prompt with images that are equal to nothing."""
    return replace(group.prompt, images=tuple(replace(image, key="") for image in group.prompt.images))


def _watch_patches(policy: Policy) -> list[int]:
    """A list that gets the number of pixel values that enter the tower, at every pass."""
    entered: list[int] = []
    (patches,) = (m for m in policy.model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    patches.register_forward_pre_hook(lambda module, args: entered.append(args[0].numel()))
    return entered


def _with_gradients(
    policy: Policy, groups: Sequence[PromptGroup], score: Callable[[], Scores]
) -> tuple[Scores, dict[str, Tensor]]:
    """Log-probs, and gradients of a loss that weighs every token differently."""
    policy.model.zero_grad(set_to_none=True)
    scored = score()
    generator = torch.Generator().manual_seed(2)
    loss = sum((row * torch.randn(len(row), generator=generator)).sum() for rows in scored for row in rows)
    loss.backward()  # type: ignore[union-attr]
    gradients = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    return [[row.detach() for row in rows] for rows in scored], gradients


def _assert_close(ours: Scores, theirs: Scores) -> None:
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    for rows, others in zip(ours, theirs, strict=True):
        for row, other in zip(rows, others, strict=True):
            torch.testing.assert_close(row, other, atol=1e-5, rtol=0)


def _assert_gradients_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(float(gradient.norm()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        # A key's bias hardly matters to a softmax: its gradient is the rounding of larger ones.
        noise = 1e-7 * largest
        assert (ours[name] - gradient).norm() <= 1e-4 * gradient.norm() + noise, name
