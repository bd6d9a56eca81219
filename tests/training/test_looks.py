"""What a view shows: pixel by pixel of the pictures, and which completion is read and scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mbpo_core.config import TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_argmax, group_logprobs
from mbpo_core.objectives.passes import (
    BLIND,
    BLIND_REJECTED,
    CHOSEN,
    MASKED,
    REJECTED,
    SAMPLED,
    SLIP,
    WRONG,
    WRONG_REJECTED,
    by_view,
)
from mbpo_core.records import Sample
from mbpo_core.stage import Row
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import JobRows
from mbpo_core.training.looks import black_out
from mbpo_core.training.reference import read_slips
from mbpo_core.training.rows import ListTable
from mbpo_core.training.scorer import Scorer
from mbpo_core.training.world import World
from tests.training.rows import rollout_rows
from tests.training.test_rows import Watched


def pixels(group: PromptGroup) -> Tensor:
    (image,) = group.prompt.images
    return image.pixel_values


def shown(policy: Policy, row: Row, column: str) -> Tensor:
    """A row's picture as the policy reads it."""
    (image,) = policy.prepare("?", [open_image(row[column][0])]).images
    return image.pixel_values


@pytest.fixture
def groups(demo_policy: Policy, image_rows: JobRows) -> GroupSet:
    """Four pairs (0-3) and four rollout groups (4-7)."""
    groups = GroupSet(demo_policy, TrainingConfig(objective="povid", perception_weight=0.01), seed=3)
    groups.add_pairs(image_rows.pairs)
    groups.add_rollouts(image_rows.rollouts)
    return groups


def test_each_view_shows_its_pictures(demo_policy: Policy, groups: GroupSet, image_rows: JobRows) -> None:
    """The clean ones, the rejected ones, and under the blind view the clean ones, which the model is kept from."""
    passes = (CHOSEN, REJECTED, WRONG, WRONG_REJECTED, BLIND, BLIND_REJECTED)
    looks = groups.looks([2, 0], passes, grad=True)
    assert [look.passes for look in looks] == [(CHOSEN, REJECTED), (WRONG, WRONG_REJECTED), (BLIND, BLIND_REJECTED)]
    assert [look.blind for look in looks] == [None, None, "mask"]
    assert all(look.grad for look in looks)
    for place, index in enumerate((2, 0)):
        row = image_rows.pairs.content[index]  # type: ignore[attr-defined]
        clean, wrong = shown(demo_policy, row, "images"), shown(demo_policy, row, "rejected_images")
        assert not torch.equal(clean, wrong)
        for look, expected in zip(looks, (clean, wrong, clean), strict=True):
            group = look.groups[place]
            assert torch.equal(pixels(group), expected)
            assert group.completions == groups.bare(index).completions
            assert group.sample_id == row["sample_id"]


def test_what_is_looked_at_first_stays_first() -> None:
    assert by_view((CHOSEN, WRONG, REJECTED, BLIND)) == {
        "clean": (CHOSEN, REJECTED),
        "rejected": (WRONG,),
        "blind": (BLIND,),
    }
    assert list(by_view((CHOSEN, WRONG, REJECTED, BLIND))) == ["clean", "rejected", "blind"]


def test_a_row_is_read_once_for_all_its_views(demo_policy: Policy, image_rows: JobRows) -> None:
    """And rejected images only where a view shows them."""
    watched = Watched(image_rows.pairs)
    groups = GroupSet(demo_policy, TrainingConfig(objective="mfpo"))
    groups.add_pairs(watched)
    groups.looks([2, 0], (CHOSEN, REJECTED, WRONG, BLIND))
    columns = ("prompt", "images", "rejected_images")
    assert watched.sliced == [(2, 3, columns), (0, 1, columns)]
    watched.sliced.clear()
    groups.looks([1], (CHOSEN, BLIND))
    assert watched.sliced == [(1, 2, ("prompt", "images"))]


@pytest.mark.parametrize("blind", ["mask", "mean", "black", "drop"])
def test_the_blind_view_cannot_tell_pictures_apart(demo_policy: Policy, image_rows: JobRows, blind: Any) -> None:
    """Whatever the variant: the same question about the other picture has the same log-probs."""
    row = image_rows.pairs.content[0]  # type: ignore[attr-defined]
    swapped = {**row, "images": row["rejected_images"]}
    groups = GroupSet(demo_policy, TrainingConfig(objective="vigil", blind=blind))
    groups.add_pairs(ListTable([row, swapped]))
    seeing, blindfolded = groups.looks([0, 1], (CHOSEN, BLIND))
    first, other = (one.logprobs for one in Scorer(demo_policy)([seeing, blindfolded]))
    assert (first[0] - first[1]).abs().max() > 0.1
    assert torch.equal(other[0], other[1])
    assert (first[0] - other[0]).abs().max() > 0.1


def test_a_slip_is_read_as_chosen_and_scored_as_itself(
    demo_policy: Policy, groups: GroupSet, image_rows: JobRows
) -> None:
    world = World(0, 1, demo_policy.device)
    read_slips(groups, range(4), demo_policy, world)
    wrong = groups.looks(range(4), [WRONG])[0]
    said = group_argmax(demo_policy, wrong.groups)
    (look,) = groups.looks(range(4), (CHOSEN, REJECTED, SLIP))
    scored = Scorer(demo_policy)([look])[0].logprobs
    for index, group in enumerate(look.groups):
        chosen, rejected = groups.bare(index).completions
        assert group.completions == [chosen, rejected, chosen]
        assert group.targets == [chosen, rejected, said[index][0]]
    assert any(said[index][0] != groups.bare(index).completions[0] for index in range(4))
    # What is read cannot matter to the first token.
    index = next(i for i in range(4) if said[i][0][0] != groups.bare(i).completions[0][0])
    prompt = look.groups[index].prompt
    first = group_logprobs(demo_policy, [PromptGroup(prompt, [said[index][0][:1]])])[0][0]
    torch.testing.assert_close(look.by_pass(scored)[SLIP][index, :1], first, atol=1e-5, rtol=0)


def test_rows_come_back_by_pass(demo_policy: Policy, groups: GroupSet) -> None:
    """Pairs' rows are interleaved; each pass gets its own, in the order of the groups."""
    read_slips(groups, range(4), demo_policy, World(0, 1, demo_policy.device))
    (look,) = groups.looks([3, 1], (CHOSEN, REJECTED, SLIP))
    rows = torch.arange(6.0)[:, None].expand(6, 4)
    found = {one: values[:, 0].tolist() for one, values in look.by_pass(rows).items()}
    assert found == {CHOSEN: [0.0, 3.0], REJECTED: [1.0, 4.0], SLIP: [2.0, 5.0]}
    (sampled,) = groups.looks([4, 5], [SAMPLED])
    assert list(sampled.by_pass(rows)) == [SAMPLED]
    assert torch.equal(sampled.by_pass(rows)[SAMPLED], rows)


def hidden_patches(picture: Image.Image, dark: Image.Image, size: int) -> tuple[int, int]:
    """(hidden, all) patches of a picture; each is black or as it was."""
    was, now = (torch.from_numpy(np.array(one)) for one in (picture, dark))
    hidden = count = 0
    for top in range(0, picture.height, size):
        for left in range(0, picture.width, size):
            before, after = (one[top : top + size, left : left + size] for one in (was, now))
            black = not bool(after.any())
            assert black or torch.equal(before, after)
            hidden, count = hidden + black, count + 1
    return hidden, count


@pytest.mark.parametrize(("share", "size"), [(0.6, 14), (0.25, 8), (1.0, 14)])
def test_patches_are_hidden_whole_and_as_many_as_asked(pictures: list[Image.Image], share: float, size: int) -> None:
    """Over pictures of all shapes, also those that patches do not divide; within four standard deviations."""
    config = TrainingConfig(perception_share=share, perception_patch=size)
    counts = [
        hidden_patches(picture, black_out(picture, config, 3, f"sample-{number}"), size)
        for number in range(12)
        for picture in pictures
    ]
    hidden, count = map(sum, zip(*counts, strict=True))
    assert abs(hidden / count - share) <= 4 * (share * (1 - share) / count) ** 0.5
    assert share == 1 or len({one for one in counts if one[1] == counts[0][1]}) > 1, "not the same number every time"


def test_hidden_patches_belong_to_the_sample(pictures: list[Image.Image]) -> None:
    """The same at every epoch, for the reference and the policy, in every process; others for another seed."""
    config, picture = TrainingConfig(), pictures[0]
    once = black_out(picture, config, 3, "a").tobytes()
    assert black_out(picture, config, 3, "a").tobytes() == once
    others = [black_out(picture, config, 3, "b").tobytes(), black_out(picture, config, 4, "a").tobytes()]
    assert len({once, *others}) == 3
    assert picture.tobytes() != once


def test_the_masked_view_shows_the_group_with_patches_hidden(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    rows = rollout_rows(demo_policy, offline_samples, 3)
    groups = GroupSet(demo_policy, TrainingConfig(objective="none", perception_weight=0.01), seed=5)
    indices = groups.add_rollouts(ListTable(rows))
    entry = groups.entry("online")
    assert (entry.passes, entry.scored) == ((SAMPLED, MASKED), (SAMPLED,))
    seeing, masked = groups.looks(indices, entry.passes, grad=True)
    black = demo_policy.family.normalise(torch.zeros(1, 3, 1, 1))[0]
    for index, clean, dark in zip(indices, seeing.groups, masked.groups, strict=True):
        picture = open_image(rows[index]["images"][0])
        expected = black_out(picture, TrainingConfig(), 5, clean.sample_id)
        assert torch.equal(pixels(clean), demo_policy.family.read(picture).pixel_values)
        assert torch.equal(pixels(dark), demo_policy.family.read(expected).pixel_values)
        is_black = (pixels(dark) - black).abs().amax(0) < 1e-5
        assert 0.2 < is_black.float().mean() < 0.95
        assert torch.equal(pixels(dark)[:, ~is_black], pixels(clean)[:, ~is_black])
        assert (dark.completions, dark.temperature) == (clean.completions, 0.8)
    without = GroupSet(demo_policy, TrainingConfig(objective="none"))
    assert without.entry("online").passes == (SAMPLED,)
