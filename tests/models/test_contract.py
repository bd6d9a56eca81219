"""The contract that every model family keeps, a promise a test, on tiny random weights.

A promise that other tests hold over all families is named here beside the ones of this file:

1. pictures become what the family's own processor makes of them, whatever their size: here, and
   `test_families.test_prompt_equals_the_processor`;
2. packed rows say what plain ones do, gradients included: `test_packing.test_packed_equals_plain_...`;
3. the attack's gradient is a finite difference's: here;
4. the saved 8-bit picture, processed again, gives the logits that the attack claimed: here;
5. log-probs of generation are those of teacher forcing: here, and `generation/test_families`;
6. other pictures, pictures of other rows and no pictures change the log-probs: here;
7. padding and company do not: here;
8. no image token is ever sampled, scored, or taken from a text: here;
9. freezing leaves out the parts it names and no other: here, and `test_families.test_parts_cover_the_model`;
10. what we write loads with plain `from_pretrained` in a process of its own, and gives equal logits: here;
11. nothing needs torchvision: here.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import mbpo_core.models
from mbpo_core.config import NegativesConfig, PolicyConfig
from mbpo_core.errors import DataError, ModelError
from mbpo_core.generation.generate import generate
from mbpo_core.models.families import FAMILIES, FROZEN_PARTS
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs, image_logprobs
from mbpo_core.models.sight import check_sight
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.items import Item
from mbpo_core.training.publish import publish_policy
from tests.models.oracle import model_inputs, own_logits
from tests.models.tiny import TINY

QUESTION = "What color is the banana?"
SIZES = [(1, 1), (1, 64), (3, 50), (33, 35), (7, 301), (301, 7), (48, 49), (427, 640)]
"""Heights and widths."""
LEVEL = 1 / 255


@pytest.fixture
def policy(family_folder: Path) -> Policy:
    """A fresh one of every family, which a test may change."""
    return load_policy(family_folder, PolicyConfig(device="cpu"))


@pytest.fixture(scope="module")
def squares() -> list[Image.Image]:
    """Four pictures of noise of one size, so that one can stand in for another."""
    random = np.random.default_rng(5)
    return [Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for _ in range(4)]


def _noise(height: int, width: int) -> Image.Image:
    random = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _groups(policy: Policy, pictures: list[Image.Image]) -> list[PromptGroup]:
    answers = [policy.encode_completion(answer) for answer in ("The banana is yellow.", "Yes", "A")]
    return [PromptGroup(policy.prepare(QUESTION, [picture]), answers) for picture in pictures]


def _flat(rows: Any) -> torch.Tensor:
    return torch.cat([row for several in rows for row in several])


# 1. Pictures.


def test_any_picture_is_within_a_grey_level_of_the_processors(policy: Policy) -> None:
    """Through the differentiable path: picture -> native -> [0, 1] -> pixel values; a hundredth of a level, in fact."""
    for size in SIZES:
        _assert_equal_to_the_processor(policy, _noise(*size))


RELEASED = {
    "gemma3": Gemma3ImageProcessorPil(size={"height": 896, "width": 896}),
    "internvl": GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}),
    "llava": CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    "qwen2_5_vl": Qwen2VLImageProcessorPil(patch_size=14),
    "qwen3_vl": Qwen2VLImageProcessorPil(patch_size=16),
}
"""As released models have them; those of the other families are in test_llava_next.py and test_idefics3.py."""


@pytest.mark.parametrize("model_type", sorted(RELEASED))
def test_resolutions_of_released_models(tmp_path: Path, model_type: str) -> None:
    policy = load_policy(TINY[model_type](tmp_path), PolicyConfig(device="cpu"))
    policy.processor.image_processor = RELEASED[model_type]
    policy.family = type(policy.family)(policy.processor, policy.model.config)
    for size in ((427, 640), (333, 101)):
        _assert_equal_to_the_processor(policy, _noise(*size))


def _assert_equal_to_the_processor(policy: Policy, picture: Image.Image) -> None:
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    made = policy.processor(images=[picture], text=text, return_tensors="pt")
    read = policy.family.read(picture)
    assert policy.family.tokenize(text, [read]) == made["input_ids"][0].tolist()
    ours = policy.family.image_inputs(policy.family.native(picture)[None] / 255)[0]
    assert (ours.features, ours.grid, ours.size) == (read.features, read.grid, read.size)
    found = model_inputs(policy, [ours], made["input_ids"])["pixel_values"]
    theirs = made["pixel_values"]
    assert found.shape == theirs.shape
    level = LEVEL / max(float(std) for std in policy.processor.image_processor.image_std)
    assert float((found - theirs).abs().max()) < 1e-2 * level, picture.size


# 3 and 4. Attacks.


def test_the_attacks_gradient_is_a_finite_difference(policy: Policy, pictures: list[Image.Image]) -> None:
    """Of the answer's mean log-prob, through language model, projector, tower and resize, in float64.

    Between the levels of 8 bits: on them a family that rounds has no derivative.
    """
    if "moe" not in policy.model.config.model_type:  # experts are multiplied in float32 or less
        policy.model.double()
    prompts = [policy.prepare(QUESTION, [picture]) for picture in pictures[1:3]]
    answers = [policy.encode_completion(answer) for answer in ("The banana is yellow.", "Yes")]
    images = [0.01 + 0.98 * policy.family.native(picture)[None].double() / 255 for picture in pictures[1:3]]
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(image.shape, generator=generator).double() / 10 for image in images]

    def value(step: float) -> torch.Tensor:
        moved = [image + step * direction for image, direction in zip(images, directions, strict=True)]
        return image_logprobs(policy, prompts, answers, moved).means.double()

    for image in images:
        image.requires_grad_(True)
    gradients = torch.autograd.grad(value(0.0).sum(), images)
    step = 2e-3  # the softmax is float32, so that a smaller one would drown in rounding
    with torch.no_grad():
        slopes = (value(step) - value(-step)) / (2 * step)
    for gradient, direction, slope in zip(gradients, directions, slopes, strict=True):
        assert abs(float(slope)) > 1e-3
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=0.02, abs=1e-4)


def test_a_saved_picture_gives_what_the_attack_claimed(
    policy: Policy, pictures: list[Image.Image], record_property: Any
) -> None:
    """PNG, decoded and processed anew: the log-probs that the attack saw of the rounded iterate, and lower ones."""
    tokens = policy.encode_completion("The banana is yellow.")
    prompts = [policy.prepare(QUESTION, [picture]) for picture in pictures]
    natives = [policy.family.native(picture)[None] for picture in pictures]
    items = [Item(prompt, native, tokens, None, 0) for prompt, native in zip(prompts, natives, strict=True)]
    settings = NegativesConfig(epsilon=8 * LEVEL, step_size=2 * LEVEL, steps=4, norm="linf", random_start=False)
    results = attack(policy, items, settings)
    with torch.no_grad():
        claimed = image_logprobs(
            policy, prompts, [tokens] * len(items), [result.saved.float() / 255 for result in results]
        ).tokens
    saved = [open_image({"bytes": png_bytes(result.saved[0])}) for result in results]
    again = [PromptGroup(policy.prepare(QUESTION, [picture]), [tokens]) for picture in saved]
    gap = float((_flat(group_logprobs(policy, again)) - torch.cat(list(claimed))).abs().max())
    record_property("largest difference, nats a token", gap)
    assert gap < 1e-5
    before = group_logprobs(policy, [PromptGroup(prompt, [tokens]) for prompt in prompts])
    assert all(one.mean() < rows[0].mean() for one, rows in zip(claimed, before, strict=True))


# 5. Generation.


def test_generation_and_teacher_forcing_agree(policy: Policy, pictures: list[Image.Image]) -> None:
    """Several completions a prompt, none, one and two pictures, at a temperature."""
    shown = ([], pictures[:1], [pictures[0], pictures[2]])
    prompts = [policy.prepare(QUESTION, list(several)) for several in shown]
    made = generate(policy, prompts, completions=3, temperature=0.7, max_new_tokens=8, seeds=[1, 2, 3])
    groups = [PromptGroup(p, [c.token_ids for c in several]) for p, several in zip(prompts, made, strict=True)]
    recorded = torch.tensor([number for several in made for c in several for number in c.logprobs])
    torch.testing.assert_close(recorded, _flat(group_logprobs(policy, groups, temperature=0.7)), atol=1e-5, rtol=0)


# 6. Pictures count.


def test_pictures_of_other_rows_change_every_row(policy: Policy, squares: list[Image.Image]) -> None:
    groups = _groups(policy, squares)
    shuffled = _groups(policy, squares[1:] + squares[:1])
    scored, others = group_logprobs(policy, groups), group_logprobs(policy, shuffled)
    for place in range(len(squares)):
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(scored[place], others[place], strict=True))
        # And a row's own picture is all that counts of them: the neighbour's row holds this one now.
        for a, b in zip(scored[place], others[place - 1], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_the_order_of_pictures_in_a_prompt_counts(policy: Policy, squares: list[Image.Image]) -> None:
    answer = policy.encode_completion("The banana is yellow.")
    there, back = (PromptGroup(policy.prepare(QUESTION, few), [answer]) for few in (squares[:2], squares[1::-1]))
    assert there.prompt.token_ids == back.prompt.token_ids
    assert (_flat(group_logprobs(policy, [there])) - _flat(group_logprobs(policy, [back]))).abs().max() > 1e-3


@pytest.mark.parametrize("blind", ["mask", "mean", "black", "drop"])
def test_blinding_changes_every_row_and_hides_the_picture(
    policy: Policy, squares: list[Image.Image], blind: Any
) -> None:
    groups, others = _groups(policy, squares[:2]), _groups(policy, squares[2:])
    seen, blinded = group_logprobs(policy, groups), group_logprobs(policy, groups, blind=blind)
    for rows, hidden in zip(seen, blinded, strict=True):
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(rows, hidden, strict=True))
    torch.testing.assert_close(_flat(blinded), _flat(group_logprobs(policy, others, blind=blind)), atol=1e-6, rtol=0)


def test_a_model_that_does_not_look_is_noticed(policy: Policy) -> None:
    check_sight(policy)
    encode = policy.family.encode
    policy.family.encode = lambda model, images: [  # type: ignore[method-assign]
        torch.zeros_like(found) for found in encode(model, images)
    ]
    with pytest.raises(ModelError, match=r"does not depend on the picture.*projector"):
        check_sight(policy)


# 7. Padding.


def test_padding_and_company_do_not_matter(policy: Policy, pictures: list[Image.Image]) -> None:
    """Alone, beside longer rows, padded with another id, and beside what the padding's side in decoding differs by."""
    long = PromptGroup(
        policy.prepare(f"{QUESTION} {QUESTION} {QUESTION}", pictures), [policy.encode_completion("Yes")] * 2
    )
    groups = [*_groups(policy, pictures[:2]), PromptGroup(policy.prepare("Yes?", []), [[policy.eos_token_ids[0]]])]
    alone = [group_logprobs(policy, [group])[0] for group in groups]
    together = group_logprobs(policy, [long, *groups])[1:]
    torch.testing.assert_close(_flat(together), _flat(alone), atol=1e-5, rtol=0)
    policy.__dict__["pad_token_id"] = policy.encode_completion("A")[0]
    torch.testing.assert_close(_flat(group_logprobs(policy, [long, *groups])[1:]), _flat(alone), atol=1e-5, rtol=0)
    prompts = [group.prompt for group in groups]
    apart = [generate(policy, [prompt], max_new_tokens=5)[0][0] for prompt in prompts]
    beside = generate(policy, [long.prompt, *prompts], max_new_tokens=5)[1:]
    for one, (other,) in zip(apart, beside, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


# 8. Image tokens.


def test_image_tokens_are_never_sampled(policy: Policy, pictures: list[Image.Image]) -> None:
    """However sure the model is of them; and no distribution counts them."""
    banned = policy.banned_token_ids
    assert set(policy.image_token_ids) <= set(banned)
    output = policy.model.get_output_embeddings()
    output.bias = torch.nn.Parameter(torch.zeros(len(output.weight)), requires_grad=False)
    prompt = policy.prepare(QUESTION, pictures[:1])
    settings: dict[str, Any] = {"completions": 4, "temperature": 1.0, "max_new_tokens": 6, "seeds": [3]}
    (before,) = generate(policy, [prompt], **settings)
    output.bias[banned] = 1e4
    (sampled,), ((greedy,),) = generate(policy, [prompt], **settings), generate(policy, [prompt], max_new_tokens=6)
    assert [one.token_ids for one in sampled] == [one.token_ids for one in before]
    for one, other in zip(sampled, before, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    for one in [*sampled, greedy]:
        assert not set(banned).intersection(one.token_ids)


def test_image_tokens_in_a_text_are_refused(policy: Policy, pictures: list[Image.Image]) -> None:
    for token in policy.tokenizer.convert_ids_to_tokens(policy.banned_token_ids):
        with pytest.raises(DataError, match="special token"):
            policy.prepare(f"What is {token}?", pictures[:1])
        with pytest.raises(DataError, match="special image tokens"):
            policy.encode_completion(f"It is {token}.")
    slot = policy.processor.image_token
    with pytest.raises(DataError, match="special token"):
        policy.prepare(f"What is {slot}?", pictures[:1])


@pytest.mark.parametrize("parts", [0, 2])
def test_image_parts_and_images_must_agree(policy: Policy, pictures: list[Image.Image], parts: int) -> None:
    message = {"role": "user", "content": [*[{"type": "image"}] * parts, {"type": "text", "text": QUESTION}]}
    with pytest.raises(DataError, match=rf"{parts} image parts but 1 images.*expected as many.*Add or remove"):
        policy.prepare([message], pictures[:1])


# 9. Freezing.


def test_frozen_parts_get_no_gradient_and_the_others_do(policy: Policy, pictures: list[Image.Image]) -> None:
    groups = _groups(policy, pictures[:2])
    for freeze, parts in FROZEN_PARTS.items():
        policy.model.zero_grad(set_to_none=True)
        trainable = policy.unfreeze(freeze)
        (-_flat(group_logprobs(policy, groups, grad=True)).mean()).backward()
        moved = {name for name, p in policy.model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved <= set(trainable)
        assert {policy.family.part_of(name) for name in moved} == {"vision", "projector", "language"} - parts


# 10. Checkpoints.

_STRANGER = """
import sys, json, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
for folder in json.loads(sys.argv[1]):
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**load_file(folder + "/inputs.bin")).logits
    save_file({"logits": logits.contiguous()}, folder + "/logits.bin")
assert not [name for name in sys.modules if name.startswith("mbpo_core")]
"""


def test_a_stranger_loads_what_we_write(tmp_path: Path, pictures: list[Image.Image]) -> None:
    """Trained a little, so that it is not what was there before; one process for all families, to import once."""
    expected = {}
    for model_type in sorted(FAMILIES):
        source = TINY[model_type](tmp_path / model_type / "source")
        policy = load_policy(source, PolicyConfig(device="cpu"))
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.01)
        target = tmp_path / model_type / "published"
        publish_policy(policy, source, target)
        prompt = policy.prepare(QUESTION, pictures[:2])
        ids = torch.tensor([prompt.token_ids])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **model_inputs(policy, prompt.images, ids)}
        save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, target / "inputs.bin")
        with torch.no_grad():
            expected[str(target)] = own_logits(policy, [(prompt.token_ids, prompt.images)])
            unchanged = own_logits(load_policy(source, PolicyConfig(device="cpu")), [(prompt.token_ids, prompt.images)])
        assert not torch.allclose(expected[str(target)], unchanged, atol=1e-3)
    subprocess.run([sys.executable, "-c", _STRANGER, json.dumps(list(expected))], check=True, cwd=tmp_path)
    for folder, ours in expected.items():
        torch.testing.assert_close(load_file(f"{folder}/logits.bin")["logits"], ours, atol=1e-5, rtol=0, msg=folder)


# 11. Pillow.


def test_no_adapter_names_torchvision() -> None:
    for path in Path(mbpo_core.models.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "torchvision"], path.name


def test_pictures_go_through_pillow(policy: Policy) -> None:
    """Also where torchvision is installed, which resizes to other pixels."""
    assert type(policy.processor.image_processor).__name__.endswith("Pil")
    assert "torchvision" not in type(policy.processor).__init__.__code__.co_names
    assert "video_processor" not in policy.processor.get_attributes()
