"""Log-probs against a plain forward pass; blinding against a dense mask; gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DataError, ShapeError
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.packing import Packing
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_argmax, group_logprobs, group_scores, image_logprobs, over_vocabulary
from mbpo_core.objectives.entropy import token_entropy
from tests.models.oracle import own_logits
from tests.models.tiny import save_tiny

QUESTIONS = ["What color is the banana?", "Yes?", "the dog, the cat, the banana: what color?"]
ANSWERS = [["The banana is yellow.", "Yes"], ["No"], ["A", "the dog", "1 2 3 1 2 3", "B"]]


def _groups(policy: Policy, images: list[Image.Image]) -> list[PromptGroup]:
    return [
        PromptGroup(policy.prepare(question, [image]), [policy.encode_completion(answer) for answer in answers])
        for question, image, answers in zip(QUESTIONS, images, ANSWERS, strict=False)
    ]


def _slow_logprobs(policy: Policy, prompt: Prompt, completion: list[int], *, hide_image: bool = False) -> Tensor:
    """One row, no padding, no sharing, dense 4-D mask, logits everywhere, softmax in float64."""
    ids = torch.tensor([prompt.token_ids + completion])
    length = ids.shape[1]
    is_image = torch.isin(ids[0], torch.tensor(policy.banned_token_ids))
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    if hide_image:
        allowed &= ~(~is_image[:, None] & is_image[None, :])
    bias = torch.zeros(1, 1, length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        logits = policy.model(
            input_ids=ids,
            pixel_values=torch.stack([image.pixel_values for image in prompt.images]),
            attention_mask=bias,
            position_ids=torch.arange(length)[None],
        ).logits[0].double()  # fmt: skip
    logits[:, policy.banned_token_ids] = -torch.inf
    start = len(prompt.token_ids) - 1
    picked = logits.log_softmax(-1)[start : length - 1]
    return picked.gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_equals_one_plain_row_at_a_time(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    scored = group_logprobs(tiny_policy, groups)
    assert [len(row) for row in scored] == [2, 1, 4]
    for group, rows in zip(groups, scored, strict=True):
        for completion, row in zip(group.completions, rows, strict=True):
            assert row.dtype == torch.float32
            assert not row.requires_grad
            torch.testing.assert_close(
                row.double(), _slow_logprobs(tiny_policy, group.prompt, completion), atol=1e-5, rtol=0
            )


def test_masked_image_equals_a_dense_mask(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    for group, rows in zip(groups, group_logprobs(tiny_policy, groups, blind="mask"), strict=True):
        for completion, row in zip(group.completions, rows, strict=True):
            expected = _slow_logprobs(tiny_policy, group.prompt, completion, hide_image=True)
            torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=0)


def test_demo_checkpoint_blinded_equals_a_dense_mask(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    group = _groups(demo_policy, demo_images)[0]
    (rows,) = group_logprobs(demo_policy, [group], blind="mask")
    for completion, row in zip(group.completions, rows, strict=True):
        expected = _slow_logprobs(demo_policy, group.prompt, completion, hide_image=True)
        torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=0)


def test_other_blind_variants(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    for blind, colour in (("mean", None), ("black", 0.0)):
        shown = torch.zeros(1, 3, 48, 48)
        if colour is not None:
            shown = tiny_policy.family.normalise(torch.full((1, 3, 48, 48), colour))
        images = (tiny_policy.family.image_input(shown[0]),)
        expected = group_logprobs(
            tiny_policy, [PromptGroup(Prompt(g.prompt.token_ids, images), g.completions) for g in groups]
        )
        _assert_equal(group_logprobs(tiny_policy, groups, blind=blind), expected)
    without = [[t for t in g.prompt.token_ids if t not in tiny_policy.banned_token_ids] for g in groups]
    text_only = [PromptGroup(Prompt(ids), g.completions) for ids, g in zip(without, groups, strict=True)]
    _assert_equal(group_logprobs(tiny_policy, groups, blind="drop"), group_logprobs(tiny_policy, text_only))
    noise = [tiny_policy.family.image_input(torch.randn(3, 48, 48)) for _ in groups]
    other = [PromptGroup(Prompt(g.prompt.token_ids, (n,)), g.completions) for g, n in zip(groups, noise, strict=True)]
    for blind in ("mask", "mean", "black", "drop"):
        _assert_equal(group_logprobs(tiny_policy, groups, blind=blind), group_logprobs(tiny_policy, other, blind=blind))


def test_shuffled_images_change_the_logprobs(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(demo_policy, demo_images)
    shuffled = _groups(demo_policy, demo_images[1:4])
    for rows, others in zip(group_logprobs(demo_policy, groups), group_logprobs(demo_policy, shuffled), strict=True):
        assert (rows[0] - others[0]).abs().max() > 1e-3


def test_padding_and_chunks_do_not_matter(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    together = group_logprobs(tiny_policy, groups)
    _assert_equal(group_logprobs(tiny_policy, groups, rows=1), together)
    _assert_equal(group_logprobs(tiny_policy, groups, rows=3), together)


def test_padding_comes_from_lengths_not_from_the_pad_id(tmp_path: Path, demo_images: list[Image.Image]) -> None:
    plain = load_policy(save_tiny(tmp_path / "plain"), PolicyConfig(device="cpu"))
    same = load_policy(save_tiny(tmp_path / "pad_is_eos", pad_is_eos=True), PolicyConfig(device="cpu"))
    assert same.pad_token_id == same.eos_token_ids[0] != plain.pad_token_id
    _assert_equal(group_logprobs(same, _groups(same, demo_images)), group_logprobs(plain, _groups(plain, demo_images)))


def test_temperature_divides_the_logits(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    group = _groups(tiny_policy, demo_images)[1]
    sharp, flat = (group_logprobs(tiny_policy, [group], temperature=t)[0][0] for t in (1e-3, 1e3))
    allowed = tiny_policy.model.config.text_config.vocab_size - len(tiny_policy.banned_token_ids)
    assert torch.allclose(flat, -torch.tensor(float(allowed)).log(), atol=0.02)
    assert sharp.min() < -10
    with pytest.raises(ShapeError):
        group_logprobs(tiny_policy, [group], temperature=0.0)


def test_gradients_are_finite_and_reach_what_is_unfrozen(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    trainable = set(tiny_policy.unfreeze("vision"))
    loss = -sum(row.mean() for rows in group_logprobs(tiny_policy, groups, grad=True) for row in rows)
    loss.backward()  # type: ignore[union-attr]
    for name, parameter in tiny_policy.model.named_parameters():
        if name in trainable:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


def test_banned_and_empty_completions_are_refused(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    prompt = _groups(tiny_policy, demo_images)[0].prompt
    with pytest.raises(DataError, match="special image tokens"):
        group_logprobs(tiny_policy, [PromptGroup(prompt, [[tiny_policy.banned_token_ids[0]]])])
    with pytest.raises(DataError, match="no tokens"):
        group_logprobs(tiny_policy, [PromptGroup(prompt, [[]])])


def test_differentiable_scorer_equals_scoring(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    native = torch.stack([tiny_policy.family.native(image) for image in demo_images[:3]])
    firsts = [group.completions[0] for group in groups]
    means = image_logprobs(tiny_policy, [g.prompt for g in groups], firsts, (native / 255).split(1)).means
    expected = torch.stack([rows[0].mean() for rows in group_logprobs(tiny_policy, groups)])
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=0)
    with pytest.raises(ShapeError, match="images came for prompts that have"):
        image_logprobs(tiny_policy, [g.prompt for g in groups], firsts, (native[:2] / 255).split(1))


# Of the whole vocabulary, and of other tokens than those that are read: every family, packed and plain.


def _families_groups(policy: Policy, pictures: list[Image.Image]) -> list[PromptGroup]:
    """Prompts of uneven lengths with one and two images, uneven completions, of which some are longer than a chunk."""
    answers = [policy.encode_completion(answer) for answer in ("The banana is yellow.", "Yes", "A")]
    return [
        PromptGroup(policy.prepare("What color is the banana?", pictures[:1]), answers),
        PromptGroup(policy.prepare("Yes?", [pictures[1], pictures[0]]), [answers[2] * 9, answers[1]]),
        PromptGroup(policy.prepare("the dog, the cat", pictures[2:3]), [answers[0]]),
    ]


def _packings(policy: Policy) -> list[Packing]:
    """One completion a row; whole groups under a mask; whole groups segment by segment, where the model can."""
    packed = Packing("packed", checked=True)
    return [Packing("plain"), packed, replace(packed, segmented=policy.packing.segmented)]


def _whole(policy: Policy, groups: list[PromptGroup]) -> list[list[Tensor]]:
    """[P][K] (T, V) logits by the model's own forward, a row at a time; image ids at -inf."""
    found = []
    for group in groups:
        of_group = []
        for tokens in group.completions:
            logits = own_logits(policy, [([*group.prompt.token_ids, *tokens], group.prompt.images)])[0]
            banned = torch.tensor(policy.banned_token_ids)
            of_group.append(logits[-len(tokens) - 1 : -1].index_fill(-1, banned, -torch.inf))
        found.append(of_group)
    return found


def test_likeliest_ids_and_entropies_are_those_of_the_full_logits(
    family_policy: Policy, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where few places' logits live at once, and few rows go together."""
    groups = _families_groups(family_policy, pictures)
    with torch.no_grad():
        whole = _whole(family_policy, groups)
    likeliest = [[logits.argmax(-1).tolist() for logits in several] for several in whole]
    rows = [logits.double().log_softmax(-1) for several in whole for logits in several]
    entropies = [-(row.exp() * row).nan_to_num(0.0).sum(-1) for row in rows]
    assert len({token for several in likeliest for tokens in several for token in tokens}) > 3
    for packing in _packings(family_policy):
        family_policy.packing = packing
        assert group_argmax(family_policy, groups) == likeliest
        found = over_vocabulary(family_policy, groups, token_entropy)
        assert [len(several) for several in found] == [3, 2, 1]
        for row, expected in zip((row for several in found for row in several), entropies, strict=True):
            torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=0)
    monkeypatch.setattr("mbpo_core.models.scoring._VOCABULARY_ROWS", 5)
    assert group_argmax(family_policy, groups, rows=1) == likeliest
    _assert_equal(over_vocabulary(family_policy, groups, token_entropy, rows=2), found)


def test_image_ids_are_never_the_likeliest(tiny_policy: Policy, pictures: list[Image.Image]) -> None:
    """However sure the model is of them."""
    groups = _families_groups(tiny_policy, pictures)
    banned = set(tiny_policy.banned_token_ids)
    output = tiny_policy.model.get_output_embeddings()
    with torch.no_grad():
        output.bias = torch.nn.Parameter(torch.zeros(len(output.weight)))
        output.bias[sorted(banned)] = 1e4
    for tokens in (tokens for several in group_argmax(tiny_policy, groups) for tokens in several):
        assert not banned.intersection(tokens)
    for row in (row for several in over_vocabulary(tiny_policy, groups, token_entropy) for row in several):
        assert row.isfinite().all()
        assert (row > 0).all()


def test_targets_are_scored_in_place_of_what_is_read(family_policy: Policy, pictures: list[Image.Image]) -> None:
    """log p(target_t | prompt, read_<t), in packed rows too, where several rows read alike and are scored apart."""
    allowed = sorted(set(range(len(family_policy.tokenizer))) - set(family_policy.banned_token_ids))
    generator = torch.Generator().manual_seed(3)
    groups = []
    for group in _families_groups(family_policy, pictures):
        read = [*group.completions, group.completions[0]]
        other = [[allowed[i] for i in torch.randint(len(allowed), (len(t),), generator=generator)] for t in read]
        groups.append(replace(group, completions=read, targets=[read[0], *other[1:]]))
    with torch.no_grad():
        whole = _whole(family_policy, groups)
    for packing in _packings(family_policy):
        family_policy.packing = packing
        for group, rows, logits in zip(groups, group_logprobs(family_policy, groups), whole, strict=True):
            assert group.targets is not None
            for row, target, every in zip(rows, group.targets, logits, strict=True):
                expected = every.log_softmax(-1).gather(-1, torch.tensor(target)[:, None])[:, 0]
                torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)
    same = [replace(group, targets=[list(tokens) for tokens in group.completions]) for group in groups]
    none = [replace(group, targets=None) for group in groups]
    _assert_equal(group_logprobs(family_policy, same), group_logprobs(family_policy, none), atol=0)
    spoiled = [[family_policy.banned_token_ids[0]] * len(tokens) for tokens in none[0].completions]
    with pytest.raises(DataError, match="special image tokens"):
        group_logprobs(family_policy, [replace(none[0], targets=spoiled)])


def test_divergences_from_a_reference_are_those_of_the_full_logits(
    family_policy: Policy, pictures: list[Image.Image]
) -> None:
    """KL(reference || policy) at every place, its gradient, and log-probs that are as without a reference."""
    temperature = 0.7
    groups = _families_groups(family_policy, pictures)
    reference = load_policy(Path(family_policy.where), PolicyConfig(device="cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in family_policy.model.parameters():
            parameter += 0.05 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=generator)
        frozen = [logits for several in _whole(reference, groups) for logits in several]
    family_policy.unfreeze("none")
    mine = [logits for several in _whole(family_policy, groups) for logits in several]
    expected = []
    for before, now in zip(frozen, mine, strict=True):
        p, q = ((logits / temperature).log_softmax(-1) for logits in (before, now))
        kept = before[0].isfinite()
        expected.append((p.exp()[:, kept] * (p[:, kept] - q[:, kept])).sum(-1))
    parameters = [one for one in family_policy.model.parameters() if one.requires_grad]
    by_hand = torch.autograd.grad(torch.cat(expected).sum(), parameters, allow_unused=True)
    assert torch.cat(expected).min() > 1e-4
    for packing in _packings(family_policy):
        family_policy.packing = reference.packing = packing
        scored = group_scores(family_policy, groups, temperature=temperature, grad=True, reference=reference)
        rows = [row for several in scored for row in several]
        found = [row.divergences for row in rows if row.divergences is not None]
        torch.testing.assert_close(torch.cat(found), torch.cat(expected), atol=1e-5, rtol=1e-4)
        gradients = torch.autograd.grad(torch.cat(found).sum(), parameters, allow_unused=True)
        largest = max(float(one.norm()) for one in by_hand if one is not None)
        for ours, theirs in zip(gradients, by_hand, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert float((ours - theirs).norm()) <= 1e-3 * float(theirs.norm()) + 1e-6 * largest
    alone = group_logprobs(family_policy, groups, temperature=temperature)
    _assert_equal([[row.logprobs.detach() for row in several] for several in scored], alone)
    assert group_scores(family_policy, groups)[0][0].divergences is None
    with torch.no_grad():
        same = group_scores(reference, groups, reference=reference)
    assert all(row.divergences.abs().max() < 1e-6 for several in same for row in several)  # type: ignore[union-attr]


def _assert_equal(ours: list[list[Tensor]], theirs: list[list[Tensor]], atol: float = 1e-5) -> None:
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    for rows, others in zip(ours, theirs, strict=True):
        for row, other in zip(rows, others, strict=True):
            torch.testing.assert_close(row, other, atol=atol, rtol=0)
