"""Idefics3's tiles: what resizing and rounding make of them, and how the text announces them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Idefics3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from mbpo_core.config import NegativesConfig, PolicyConfig
from mbpo_core.errors import DataError, ModelError
from mbpo_core.models.encoding import encode
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.idefics3 import Idefics3Family
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.resize import lanczos
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.models.smolvlm import SmolVLMFamily, SmolVLMProcessor
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.items import Item
from tests.models.tiny import TINY
from tests.models.tiny_idefics3 import tiny_tokenizer

FAMILIES = ["idefics3", "smolvlm"]
QUESTION = "What color is the banana?"
SIZES = [(1, 1), (1, 300), (300, 1), (3, 50), (47, 31), (48, 49), (97, 96), (101, 203), (33, 7), (400, 501)]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(folder, PolicyConfig(device="cpu"))


def noise(height: int, width: int, low: int = 0, high: int = 256) -> Image.Image:
    random = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(random.integers(low, high, (height, width, 3), dtype=np.uint8))


def smooth(height: int, width: int) -> Image.Image:
    across, down = torch.linspace(0, 9, width).sin(), torch.linspace(0, 7, height).cos()
    levels = (127 + 60 * across + 60 * down[:, None]).round()
    return Image.fromarray(levels.byte()[..., None].expand(-1, -1, 3).numpy())


def changed(folder: Path, target: Path, **settings: Any) -> Path:
    """A copy of a model folder whose image processor has other settings."""
    copy = shutil.copytree(folder, target)
    described = json.loads((copy / "processor_config.json").read_text())
    described["image_processor"] |= settings
    (copy / "processor_config.json").write_text(json.dumps(described))
    return copy


@pytest.mark.parametrize("size", [(30, 47), (7, 100), (100, 7), (48, 48)])
@pytest.mark.parametrize("target", [(24, 24), (72, 31), (10, 90), (48, 48)])
def test_resize_is_pillows_less_rounding(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = noise(*size, low=80, high=170)  # nothing is clipped, so that the order of the passes is the same
    height, width = target
    theirs = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    ours = lanczos(torch.from_numpy(np.array(picture)).permute(2, 0, 1).double() / 255, height, width) * 255
    rounded_twice = 0.5 * 1.7 + 0.5  # weights of the second pass may sum to 1.7 in absolute value
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= rounded_twice


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_equals_the_processor(folder: Path, tmp_path: Path, size: tuple[int, int], *, splitting: bool) -> None:
    policy = load_policy(changed(folder, tmp_path / "model", do_image_splitting=splitting), PolicyConfig(device="cpu"))
    picture = noise(*size)
    prompt = policy.prepare(QUESTION, [picture])
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    made = policy.processor(images=[picture], text=text, return_tensors="pt")
    assert prompt.token_ids == made["input_ids"][0].tolist()
    assert torch.equal(prompt.images[0].pixel_values, made["pixel_values"][0])
    native = policy.family.native(picture)[None] / 255
    ours = policy.family.image_inputs(native)[0]
    assert ours.features == prompt.images[0].features
    assert (ours.pixel_values - made["pixel_values"][0]).abs().max() < 1e-6
    between = policy.family.image_inputs(native * 0.99 + 0.001)[0]
    assert between.pixel_values.shape == ours.pixel_values.shape
    assert policy.family.tokenize(text, [between]) == prompt.token_ids
    with torch.no_grad():
        (found,) = encode(policy, prompt.images)
    assert len(found) == prompt.images[0].features


@pytest.mark.slow
@pytest.mark.parametrize("size", [(480, 640), (1001, 333), (63, 2000)])
@pytest.mark.parametrize(
    ("family", "processor", "images"),
    [
        (Idefics3Family, Idefics3Processor, Idefics3ImageProcessorPil()),
        (
            SmolVLMFamily,
            SmolVLMProcessor,
            SmolVLMImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
        ),
    ],
    ids=FAMILIES,
)
def test_resolutions_of_released_models(family: Any, processor: Any, images: Any, size: tuple[int, int]) -> None:
    """Pictures of 8 bits are the processor's; the unrounded path strays by the roundings of two or three resizes."""
    adapter = family(processor(images, tiny_tokenizer()), SimpleNamespace())
    picture = smooth(*size)
    read = adapter.read(picture)
    native = adapter.native(picture) / 255
    assert (adapter.image_inputs(native[None])[0].pixel_values - read.pixel_values).abs().max() < 1e-6
    unrounded = adapter.normalise(adapter._cut(native))
    assert ((unrounded - read.pixel_values).abs() * 0.5 * 255).max() < 2.0
    assert len(read.pixel_values) > 4


def test_pictures_of_equal_counts_are_announced_by_their_own_rows(policy: Policy) -> None:
    wide, tall = (policy.prepare(QUESTION, [noise(*size)]) for size in ((20, 48), (48, 20)))
    assert wide.images[0].features == tall.images[0].features
    text = [policy.tokenizer.decode(prompt.token_ids) for prompt in (wide, tall)]
    assert "<row_1_col_2>" in text[0]
    assert "<row_2_col_1>" in text[1]
    assert len(policy.prepare(QUESTION, []).token_ids) < len(wide.token_ids)


def test_perturbed_png_is_read_as_the_attack_saw_it(policy: Policy) -> None:
    """Pixels of 8 bits mean the same to the processor and to the differentiable path."""
    generator = torch.Generator().manual_seed(0)
    for size in ((30, 47), (70, 33), (100, 120)):
        native = policy.family.native(noise(*size))
        steps = torch.randint(-8, 9, native.shape, generator=generator)
        perturbed = (native / 255 + steps / 255).clamp(0, 1)
        ours = policy.family.image_inputs(perturbed[None])[0]
        read = policy.family.read(open_image({"bytes": png_bytes((perturbed * 255).round().byte())}))
        assert ours.features == read.features
        assert (ours.pixel_values - read.pixel_values).abs().max() < 1e-6


def test_attacks_lower_the_score_of_what_is_saved(policy: Policy, pictures: list[Image.Image]) -> None:
    """PGD along the gradients of the unrounded resize, measured on the PNG that it leaves, sizes mixed."""
    tokens = policy.encode_completion("The banana is yellow.")
    prompts = [policy.prepare(QUESTION, [picture]) for picture in pictures]
    items = [
        Item(prompt, policy.family.native(picture)[None], tokens, None, 0)
        for prompt, picture in zip(prompts, pictures, strict=True)
    ]
    results = attack(policy, items, NegativesConfig(epsilon=8 / 255, step_size=2 / 255, steps=6, norm="linf"))
    saved = [open_image({"bytes": png_bytes(result.saved[0].byte())}) for result in results]
    perturbed = [policy.prepare(QUESTION, [picture]) for picture in saved]
    assert [prompt.token_ids for prompt in perturbed] == [prompt.token_ids for prompt in prompts]
    before, after = (group_logprobs(policy, [PromptGroup(p, [tokens]) for p in ps]) for ps in (prompts, perturbed))
    assert all(new[0].mean() < old[0].mean() - 0.01 for old, new in zip(before, after, strict=True))


def test_features_are_the_models_own(policy: Policy, pictures: list[Image.Image]) -> None:
    images = [policy.family.read(picture) for picture in pictures]
    with torch.no_grad():
        for image, ours in zip(images, policy.family.encode(policy.model, images), strict=True):
            (own,) = policy.model.get_image_features(image.pixel_values[None], return_dict=True).pooler_output
            torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)


def test_special_image_tokens_in_a_question_are_refused(policy: Policy) -> None:
    with pytest.raises(DataError, match="special token"):
        policy.prepare("What is <image>?", [])


@pytest.mark.parametrize("settings", [{"resample": 3}, {"do_resize": False}, {"size": {"height": 48, "width": 48}}])
def test_processor_that_resizes_otherwise_is_refused(folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="Lanczos"):
        load_policy(changed(folder, tmp_path / "model", **settings), PolicyConfig(device="cpu"))


def test_folder_in_the_hubs_old_layout_is_the_same_policy(
    folder: Path, policy: Policy, pictures: list[Image.Image], tmp_path: Path
) -> None:
    """preprocessor_config.json and chat_template.json beside processor_config.json, as the hub has them."""
    old = shutil.copytree(folder, tmp_path / "old")
    described = json.loads((old / "processor_config.json").read_text())
    (old / "preprocessor_config.json").write_text(json.dumps(described.pop("image_processor")))
    (old / "processor_config.json").write_text(json.dumps(described))
    template = (old / "chat_template.jinja").read_text()
    (old / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (old / "chat_template.jinja").unlink()
    again = load_policy(old, PolicyConfig(device="cpu"))
    ours, theirs = (one.prepare(QUESTION, pictures) for one in (again, policy))
    assert ours.token_ids == theirs.token_ids
    for image, other in zip(ours.images, theirs.images, strict=True):
        assert torch.equal(image.pixel_values, other.pixel_values)
