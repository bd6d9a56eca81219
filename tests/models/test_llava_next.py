"""Images in tiles: what resizing, rounding, padding and extreme sizes make of them."""

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
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from mbpo_core.config import NegativesConfig, PolicyConfig
from mbpo_core.demo.tiny_llava import build_tokenizer
from mbpo_core.errors import ModelError
from mbpo_core.models.encoding import encode
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.llava_next import LlavaNextFamily
from mbpo_core.models.llava_onevision import LlavaOnevisionFamily
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.resize import bicubic
from mbpo_core.models.scoring import group_logprobs, image_logprobs
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.items import Item
from tests.models.texts import TEXTS
from tests.models.tiny import TINY

FAMILIES = ["llava_next", "llava_onevision"]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(folder, PolicyConfig(device="cpu"))


def noise(height: int, width: int, low: int = 0, high: int = 256) -> Image.Image:
    random = np.random.default_rng(height * 1000 + width)
    return Image.fromarray(random.integers(low, high, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(30, 47), (7, 100), (100, 7), (48, 48)])
@pytest.mark.parametrize("target", [(24, 24), (72, 31), (10, 90), (48, 48)])
def test_resize_is_pillows_less_rounding(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = noise(*size, low=70, high=180)  # nothing is clipped, so that the order of the passes is the same
    height, width = target
    theirs = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    ours = bicubic(torch.from_numpy(np.array(picture)).permute(2, 0, 1).double() / 255, height, width) * 255
    rounded_twice = 0.5 * 1.4 + 0.5  # weights of the second pass may sum to 1.4 in absolute value
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= rounded_twice


def test_perturbed_png_is_read_as_the_attack_saw_it(policy: Policy) -> None:
    """Pixels of 8 bits mean the same to the processor and to the differentiable path."""
    generator = torch.Generator().manual_seed(0)
    for size in ((30, 47), (70, 33), (100, 120)):
        native = policy.family.native(noise(*size))
        steps = torch.randint(-8, 9, native.shape, generator=generator)
        perturbed = (native / 255 + steps / 255).clamp(0, 1)
        ours = policy.family.image_inputs(perturbed[None])[0]
        read = policy.family.read(open_image({"bytes": png_bytes((perturbed * 255).round().byte())}))
        assert (ours.features, ours.size) == (read.features, read.size)
        assert (ours.pixel_values - read.pixel_values).abs().max() < 1e-6


def test_image_scores_of_native_pictures_are_those_of_the_prompt(policy: Policy, pictures: list[Image.Image]) -> None:
    prompts = [policy.prepare("What color is the banana?", [picture]) for picture in pictures]
    tokens = policy.encode_completion("The banana is yellow.")
    scored = group_logprobs(policy, [PromptGroup(prompt, [tokens]) for prompt in prompts])
    images = [policy.family.native(picture)[None] / 255 for picture in pictures]
    found = image_logprobs(policy, prompts, [tokens] * len(prompts), images).means
    torch.testing.assert_close(found, torch.stack([rows[0].mean() for rows in scored]), atol=1e-5, rtol=0)


def test_attacks_lower_the_score_of_what_is_saved(policy: Policy, pictures: list[Image.Image]) -> None:
    """PGD along the gradients of the unrounded resize, measured on the PNG that it leaves, sizes mixed."""
    tokens = policy.encode_completion("The banana is yellow.")
    prompts = [policy.prepare("What color is the banana?", [picture]) for picture in pictures]
    natives = [policy.family.native(picture)[None] for picture in pictures]
    items = [Item(prompt, native, tokens, None, 0) for prompt, native in zip(prompts, natives, strict=True)]
    settings = NegativesConfig(epsilon=8 / 255, step_size=2 / 255, steps=6, norm="linf")
    results = attack(policy, items, settings)
    saved = [open_image({"bytes": png_bytes(result.saved[0].byte())}) for result in results]
    perturbed = [policy.prepare("What color is the banana?", [picture]) for picture in saved]
    assert [len(prompt.token_ids) for prompt in perturbed] == [len(prompt.token_ids) for prompt in prompts]
    before, after = (group_logprobs(policy, [PromptGroup(p, [tokens]) for p in ps]) for ps in (prompts, perturbed))
    assert all(new[0].mean() < old[0].mean() - 0.01 for old, new in zip(before, after, strict=True))


def test_rounding_is_transparent_to_gradients(policy: Policy) -> None:
    """Where the processor rounds, the gradient is that of the same resize without rounding."""
    native = policy.family.native(noise(30, 47, low=70, high=180)).double()[None] / 255
    gradients, values = [], []
    for image in (native, native + 0.1 / 255):
        image.requires_grad_(True)
        tiles = policy.family.image_inputs(image)[0].pixel_values
        weights = torch.randn(tiles.shape, generator=torch.Generator().manual_seed(0)).double()
        gradients += torch.autograd.grad((tiles * weights).sum(), image)
        values.append(tiles.detach())
    torch.testing.assert_close(*gradients)
    assert 0.1 / 255 < (values[0] - values[1]).abs().max() < 1.5 / 255 / 0.26


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 50), (400, 500)])
def test_extreme_sizes_fill_the_positions_they_are_given(policy: Policy, size: tuple[int, int]) -> None:
    picture = noise(*size)
    prompt = policy.prepare("Yes?", [picture])
    made = policy.processor(images=[picture], text=policy.processor.image_token, return_tensors="pt")["input_ids"]
    assert prompt.images[0].features == int((made == policy.processor.image_token_id).sum())
    with torch.no_grad():
        (found,) = encode(policy, prompt.images)
    assert len(found) == prompt.images[0].features
    ours = policy.family.image_inputs(policy.family.native(picture)[None] / 255)[0]
    assert ours.features == len(found)
    assert (ours.pixel_values - prompt.images[0].pixel_values).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(480, 640), (1000, 700)])
@pytest.mark.parametrize(
    ("family", "images", "settings"),
    [
        (
            LlavaNextFamily,
            LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
            {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
        ),
        (
            LlavaOnevisionFamily,
            LlavaOnevisionImageProcessorPil(),
            {"num_image_tokens": 729, "vision_aspect_ratio": "anyres_max_9", "vision_feature_select_strategy": "full"},
        ),
    ],
    ids=FAMILIES,
)
def test_resolutions_of_released_models(family: Any, images: Any, settings: Any, size: tuple[int, int]) -> None:
    """The unrounded path, on a smooth picture, stays within the roundings of the processor's."""
    across, down = torch.linspace(0, 9, size[1]).sin(), torch.linspace(0, 7, size[0]).cos()
    levels = (127 + 60 * across + 60 * down[:, None]).round()
    picture = Image.fromarray(levels.byte()[..., None].expand(-1, -1, 3).numpy())
    processor = family.processor_class(images, build_tokenizer(TEXTS), **settings)
    adapter = family(processor, SimpleNamespace())
    read = adapter.read(picture)
    ours = adapter.image_inputs(adapter.native(picture)[None] / 255)[0]
    assert torch.equal(ours.pixel_values, read.pixel_values)
    smooth = adapter._cut(adapter.native(picture) / 255)
    assert ((adapter.normalise(smooth) - read.pixel_values).abs() * 0.26 * 255).max() < 1.3
    assert ours.features == read.features > 1500


def test_processor_whose_tiles_are_resized_again_is_refused(folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(folder, tmp_path / "model")
    described = json.loads((changed / "processor_config.json").read_text())
    described["image_processor"] |= {"size": {"height": 32, "width": 32}, "crop_size": {"height": 24, "width": 24}}
    (changed / "processor_config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="tiles of 24 pixels to 32"):
        load_policy(changed, PolicyConfig(device="cpu"))


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
    ours, theirs = (one.prepare("What color is the banana?", pictures) for one in (again, policy))
    assert ours.token_ids == theirs.token_ids
    for image, other in zip(ours.images, theirs.images, strict=True):
        assert torch.equal(image.pixel_values, other.pixel_values)
