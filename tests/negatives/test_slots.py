"""The attack over many samples at once: the same as one by one, in fewer and shorter rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import image_logprobs
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.ball import Ball
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.items import Item, Perturbed
from mbpo_core.negatives.slots import Slot

SETTINGS = NegativesConfig(epsilon=8 / 255, step_size=2 / 255, steps=5, batch_size=3)


@contextmanager
def watched(policy: Policy) -> Iterator[list[tuple[int, int]]]:
    """(rows, length) of every pass through the language model."""
    shapes: list[tuple[int, int]] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        shapes.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    hook = policy.family.language_model(policy.model).register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        hook.remove()


def score(policy: Policy, items: Sequence[Item], images: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat(
            [
                image_logprobs(policy, [item.prompt], [item.aim], [image / 255]).means
                for item, image in zip(items, images, strict=True)
            ]
        )


def plain_pgd(policy: Policy, item: Item, epsilon: int, stride: int, steps: int) -> Tensor:
    """Textbook sign descent of one sample, in levels; random start on the grid. (n, 3, H, W) uint8."""
    clean = item.images.float()
    noise = torch.randint(-epsilon, epsilon + 1, clean.shape, generator=torch.Generator().manual_seed(item.seed))
    current = (clean + noise).clamp(0, 255)
    for _ in range(steps):
        pixels = (current / 255).requires_grad_()
        image_logprobs(policy, [item.prompt], [item.chosen], [pixels]).means.sum().backward()
        assert pixels.grad is not None
        moved = current - stride * pixels.grad.sign()
        current = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon).clamp(0, 255)
    return current.to(torch.uint8)


def test_one_slot_is_the_plain_loop_to_the_bit(demo_policy: Policy, items: list[Item]) -> None:
    results = attack(demo_policy, items[:4], SETTINGS.model_copy(update={"batch_size": 1}))
    for item, result in zip(items, results, strict=False):
        assert torch.equal(result.saved, plain_pgd(demo_policy, item, 8, 2, 5))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_no_step_of_a_slot_leaves_its_region(items: list[Item], norm: Literal["linf", "l2"], momentum: float) -> None:
    region = torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    region[..., 5:20, 11:40] = True
    item, outside = replace(items[0], region=region), ~region.expand(1, 3, 48, 48)
    ball = Ball(norm, 8.0 if norm == "linf" else 300.3)
    slot = Slot.enter(0, item, ball, SETTINGS, torch.device("cpu"))
    clean, generator = item.images.float(), torch.Generator().manual_seed(0)
    for _ in range(4):
        for image in (slot.current, slot.rounded()):
            assert torch.equal(image[outside], clean[outside])
            assert not torch.equal(image, clean)
        before = slot.current
        slot.move(torch.randn(clean.shape, generator=generator), 2.0 if norm == "linf" else 50.0, momentum)
        if norm == "l2" and momentum == 0:
            # The step has its whole length inside, up to the ball and the pixel range.
            assert float((slot.current - before).norm()) == pytest.approx(50.0, rel=0.25)


def test_many_slots_reach_what_the_plain_loop_reaches(demo_policy: Policy, items: list[Item]) -> None:
    plain = [plain_pgd(demo_policy, item, 8, 2, 5) for item in items]
    expected = score(demo_policy, items, plain)
    for size in (3, 5, 8, 64):
        results = attack(demo_policy, items, SETTINGS.model_copy(update={"batch_size": size}))
        changed = [(result.saved != image).float().mean() for result, image in zip(results, plain, strict=True)]
        assert torch.stack(changed).mean() < 0.02, "only signs of vanishing gradients may differ"
        reached = score(demo_policy, items, [result.saved for result in results])
        torch.testing.assert_close(reached, expected, atol=0.05, rtol=0.05)
        assert reached.mean() <= expected.mean() + 0.01


def test_a_finished_item_leaves_its_slot_to_the_next(demo_policy: Policy, items: list[Item]) -> None:
    bound = float(score(demo_policy, items, [item.images.float() for item in items]).median()) - 0.5
    settings = SETTINGS.model_copy(update={"stop_logprob": bound, "random_start": False, "steps": 6})
    with watched(demo_policy) as shapes:
        results = attack(demo_policy, items, settings)
    # An item is in every pass before its steps, and in the one that finds its bound met.
    passes = [result.steps + (result.stopped == "logprob") for result in results]
    assert len(set(passes)) > 2
    rows = [count for count, _ in shapes]
    assert sum(rows) == sum(passes), "a finished item is in no further pass"
    # A slot is empty only when the queue is.
    short = next((index for index, count in enumerate(rows) if count < 3), len(rows))
    assert all(count == 3 for count in rows[:short])
    assert rows[short:] == sorted(rows[short:], reverse=True)
    assert len(rows) < sum(max(passes[start : start + 3]) for start in range(0, len(items), 3))
    alone = [attack(demo_policy, [item], settings)[0] for item in items]
    assert [result.steps for result in alone] == [result.steps for result in results]


def test_neighbours_in_a_batch_are_of_a_length(demo_policy: Policy, items: list[Item]) -> None:
    longer = [replace(item, chosen=(item.chosen * 30)[: 4 + 56 * (k % 2)]) for k, item in enumerate(items)]
    settings = SETTINGS.model_copy(update={"steps": 1, "batch_size": 4})
    with watched(demo_policy) as shapes:
        results = attack(demo_policy, longer, settings)
    padded = sum(rows * length for rows, length in shapes)
    tokens = sum(item.length for item in longer)
    unsorted = sum(4 * max(item.length for item in longer[start : start + 4]) for start in (0, 4))
    assert padded >= tokens
    assert padded - tokens < (unsorted - tokens) / 2
    for item, result in zip(longer, results, strict=True):
        assert (result.saved.int() - item.images.int()).abs().max() <= 8, "results are in the items' order"


def test_by_length_keeps_the_order_of_the_rows() -> None:
    rows = ["aaa", "b", "cc", "dddd", "e"]
    batches: list[list[str]] = []

    def upper(few: list[str]) -> list[str]:
        batches.append(few)
        return [word.upper() for word in few]

    assert by_length(rows, len, 2, upper) == ["AAA", "B", "CC", "DDDD", "E"]
    assert batches == [["dddd", "aaa"], ["cc", "b"], ["e"]]
    assert by_length([], len, 2, upper) == []


def test_confirmation_is_asked_where_the_answer_changed_and_less_and_less(
    demo_policy: Policy, items: list[Item]
) -> None:
    asked: list[list[int]] = []

    def refuse(places: Sequence[int], images: Sequence[Tensor]) -> list[None]:
        asked.append(list(places))
        return [None] * len(places)

    settings = SETTINGS.model_copy(update={"steps": 12, "epsilon": 16 / 255, "step_size": 4 / 255, "batch_size": 8})
    never = [replace(item, may_flip=False) for item in items[:2]] + items[2:]
    results = attack(demo_policy, never, settings, refuse)
    assert [result.checks for result in results[:2]] == [0, 0]
    counted = [sum(places.count(place) for places in asked) for place in range(len(items))]
    assert [result.checks for result in results] == counted
    assert max(counted) in (4, 5), "at steps 0, 1, 3, 6 and 10, or from a later step on"
    assert all((result.steps, result.stopped, result.proof) == (12, "steps", None) for result in results)
    without = attack(demo_policy, never, settings)
    assert all(torch.equal(a.saved, b.saved) for a, b in zip(results, without, strict=True))


def test_a_confirmed_flip_ends_the_attack_on_the_image_that_was_shown(demo_policy: Policy, items: list[Item]) -> None:
    shown: dict[int, Tensor] = {}

    def accept(places: Sequence[int], images: Sequence[Tensor]) -> list[str]:
        shown.update(zip(places, images, strict=True))
        return [f"proof {place}" for place in places]

    settings = SETTINGS.model_copy(update={"epsilon": 16 / 255, "step_size": 4 / 255, "steps": 8, "norm": "linf"})
    results = attack(demo_policy, items, settings, accept)
    assert shown
    for place, result in enumerate(results):
        if place in shown:
            assert (result.stopped, result.proof, result.checks) == ("flip", f"proof {place}", 1)
            assert torch.equal(result.saved, shown[place])
        else:
            assert (result.stopped, result.steps) == ("steps", 8)


@pytest.mark.parametrize("targeted", [False, True])
def test_mixed_native_sizes(qwen: Policy, targeted: bool) -> None:
    target = qwen.encode_completion("No") if targeted else None
    items: list[Item] = []
    for seed, (width, height) in enumerate([(32, 24), (16, 16), (24, 32), (32, 24), (16, 16), (32, 24)]):
        pixels = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)).byte()
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        prompt = qwen.prepare("What color is the banana?", [picture])
        native = qwen.family.native(picture)[None]
        items.append(Item(prompt, native, qwen.encode_completion("The banana is yellow."), target, seed))
    assert len({item.images.shape for item in items}) == 3
    with watched(qwen) as shapes:
        together = attack(qwen, items, SETTINGS)
    assert {rows for rows, _ in shapes} == {3}, "sizes share a pass"
    alone: list[Perturbed] = [attack(qwen, [item], SETTINGS)[0] for item in items]
    for item, one, other in zip(items, together, alone, strict=True):
        assert one.saved.shape == item.images.shape
        assert (one.saved != other.saved).float().mean() < 0.02
    saved = [result.saved for result in together]
    rise = score(qwen, items, saved) - score(qwen, items, [item.images.float() for item in items])
    assert ((rise > 0) == targeted).all()
