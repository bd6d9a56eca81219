"""The contract that every model family keeps, under every attention implementation."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DataError, ShapeError
from mbpo_core.models.encoding import encode_images
from mbpo_core.models.families import FAMILIES
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.layout import Pack, lay_out, visible
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.training.publish import publish_policy
from tests.models.oracle import model_inputs, own_blindfolded, own_logits, own_logprobs, own_positions
from tests.models.tiny import TINY

QUESTION = "What color is the banana?"
PROJECTORS = {
    "gemma3": ["multi_modal_projector"],
    "idefics3": ["connector"],
    "internvl": ["multi_modal_projector"],
    "llava": ["multi_modal_projector"],
    "llava_next": ["multi_modal_projector", "image_newline"],
    "llava_onevision": ["multi_modal_projector", "image_newline"],
    "qwen2_5_vl": ["visual.merger"],
    "qwen2_vl": ["visual.merger"],
    "qwen3_vl": ["visual.merger", "visual.deepstack_merger_list"],
    "qwen3_vl_moe": ["visual.merger", "visual.deepstack_merger_list"],
    "smolvlm": ["connector"],
}
QWENS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"]


def test_every_family_has_a_tiny_model_and_a_row_in_the_documents() -> None:
    assert set(TINY) == set(FAMILIES)
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` ", page, re.MULTILINE))
    assert rows == set(FAMILIES)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_prompt_equals_the_processor(family_policy: Policy, pictures: list[Image.Image], count: int) -> None:
    content = [*[{"type": "image"}] * count, {"type": "text", "text": QUESTION}]
    text = family_policy.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    expected = family_policy.processor(images=pictures[:count] or None, text=text, return_tensors="pt")
    prompt = family_policy.prepare(QUESTION, pictures[:count])
    assert prompt.token_ids == expected["input_ids"][0].tolist()
    assert len(prompt.images) == count
    if count:
        found = model_inputs(family_policy, prompt.images, expected["input_ids"])
        for name in ("pixel_values", "image_grid_thw", "image_sizes"):
            assert (name in found) == (name in expected)
            assert name not in found or torch.equal(found[name], expected[name])


@pytest.mark.parametrize("answer", ["The banana is yellow.", "Yes", "grün, ü!"])
def test_completion_continues_the_template(family_policy: Policy, answer: str) -> None:
    asked = {"role": "user", "content": [{"type": "text", "text": QUESTION}]}
    answered = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    text = family_policy.processor.apply_chat_template([asked, answered], tokenize=False)
    whole = family_policy.family.tokenize(text, [])
    ours = family_policy.prepare(QUESTION, []).token_ids + family_policy.encode_completion(answer)
    assert whole[: len(ours)] == ours
    assert not family_policy.decode(whole[len(ours) :]), "white space may follow the end-of-sequence token"


def test_images_of_native_size_equal_the_processor(family_policy: Policy, pictures: list[Image.Image]) -> None:
    family = family_policy.family
    for picture in pictures:
        native, read = family.native(picture), family.read(picture)
        assert native.dtype == torch.uint8
        ours = family.image_inputs(native[None] / 255)[0]
        assert (ours.features, ours.grid, ours.size) == (read.features, read.grid, read.size)
        assert (ours.pixel_values - read.pixel_values).abs().max() < 1e-6
        again = family.native(Image.fromarray(native.permute(1, 2, 0).numpy()))
        assert torch.equal(again, native), "an image of native size must pass the processor unchanged"


def test_features_are_differentiable_in_the_pixels(family_policy: Policy, pictures: list[Image.Image]) -> None:
    """Autograd against central differences along pixels that are far apart, and along random directions.

    Between the levels of 8 bits: on them a family that rounds has no derivative.
    """
    family, model = family_policy.family, family_policy.model.double()
    image = 0.01 + 0.98 * family.native(pictures[1]).double()[None] / 255
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(family.encode(model, family.image_inputs(image))[0].shape, generator=generator).double()

    def value(pixels: torch.Tensor) -> torch.Tensor:
        return (family.encode(model, family.image_inputs(pixels))[0] * weights).sum()

    image.requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(image), image)
    _, _, height, width = image.shape
    directions = [torch.zeros_like(image) for _ in range(3)]
    for direction, (y, x) in zip(directions, ((0, 0), (height // 2, width // 3), (height - 1, width - 1)), strict=True):
        direction[0, :, y, x] = torch.tensor([1.0, -1.0, 0.5])
    directions += [torch.randn(image.shape, generator=generator).double() / 30 for _ in range(2)]
    with torch.no_grad():
        for direction in directions:
            step = 2e-3  # some layers compute in float32, so that a smaller one would drown in rounding
            slope = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
            assert slope.abs() > 1e-3
            torch.testing.assert_close((gradient * direction).sum(), slope, rtol=0.02, atol=1e-3)


def test_positions_equal_the_models_own(family_policy: Policy, pictures: list[Image.Image]) -> None:
    for shown in ([], pictures[:1], pictures[1:3], pictures):
        prompt = family_policy.prepare(QUESTION, shown)
        ours, own = family_policy.family.positions(prompt), own_positions(family_policy, prompt)
        assert torch.equal(ours, own.expand_as(ours))
        end = replace(prompt, token_ids=[*prompt.token_ids, *[family_policy.eos_token_ids[0]] * 3])
        follow = visible(family_policy, prompt, None).follow
        assert own_positions(family_policy, end)[:, -3:].tolist() == [[follow, follow + 1, follow + 2]] * len(own)


def test_hidden_states_equal_the_models_own_forward(family_policy: Policy, pictures: list[Image.Image]) -> None:
    prompts = [
        family_policy.prepare(QUESTION, pictures[:1]),
        family_policy.prepare("Yes?", pictures[1:3]),
        family_policy.prepare("the dog, the cat", []),
    ]
    with torch.no_grad():
        features = encode_images(family_policy, prompts, None)
        assert features is not None
        rows = lay_out(family_policy, [Pack(visible(family_policy, prompt, None), [[2]]) for prompt in prompts])
        states = family_policy.family.hidden(
            family_policy.model,
            [feature for row in features for feature in row],
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
        )
        logits = family_policy.model.get_output_embeddings()(states)
        own = own_logits(family_policy, [([*prompt.token_ids, 2], prompt.images) for prompt in prompts])
    for prompt, ours, theirs in zip(prompts, logits, own, strict=True):
        length = len(prompt.token_ids) + 1
        torch.testing.assert_close(ours[:length], theirs[-length:], atol=2e-5, rtol=1e-5)


def test_blank_images_are_mean_and_black(family_policy: Policy, pictures: list[Image.Image]) -> None:
    family = family_policy.family
    for picture in pictures:
        image = family.read(picture)
        mean, black = family.blinded(image, "mean"), family.blinded(image, "black")
        assert not mean.pixel_values.any()
        _, height, width = family.native(picture).shape
        shown = family.read(Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)))
        torch.testing.assert_close(black.pixel_values, shown.pixel_values, atol=1e-6, rtol=0)
        for blank in (mean, black):
            assert (blank.features, blank.grid, blank.size) == (image.features, image.grid, image.size)
        assert mean.key != black.key
    keys = {family.blinded(family.read(picture), "mean").key for picture in pictures}
    assert len(keys) == len({(i.pixel_values.shape, i.grid, i.size) for i in map(family.read, pictures)})


@pytest.mark.parametrize("blind", ["mask", "mean", "black", "drop"])
def test_blind_scores_equal_the_models_own(family_policy: Policy, pictures: list[Image.Image], blind: str) -> None:
    family = family_policy.family
    completions = [family_policy.encode_completion(answer) for answer in ("The banana is yellow.", "No")]
    groups = [
        PromptGroup(family_policy.prepare(QUESTION, shown), completions) for shown in (pictures[:1], pictures[1:3])
    ]
    with torch.no_grad():
        if blind == "mask":
            own = [[own_blindfolded(family_policy, g.prompt, c) for c in g.completions] for g in groups]
        else:
            seen = []
            for group in groups:
                prompt = replace(group.prompt, images=tuple(family.blinded(i, blind) for i in group.prompt.images))
                if blind == "drop":
                    kept = [t for t in prompt.token_ids if t != family_policy.model.config.image_token_id]
                    prompt = replace(prompt, token_ids=kept, images=())
                seen.append(replace(group, prompt=prompt))
            own = own_logprobs(family_policy, seen)
    ours = group_logprobs(family_policy, groups, blind=blind)  # type: ignore[arg-type]
    for rows, others in zip(ours, own, strict=True):
        for row, other in zip(rows, others, strict=True):
            torch.testing.assert_close(row, other, atol=1e-5, rtol=0)


def test_equal_keys_are_encoded_once_with_the_same_bits(family_policy: Policy, pictures: list[Image.Image]) -> None:
    prompts = [family_policy.prepare(QUESTION, shown) for shown in (pictures[:2], pictures[1:3], pictures[:1])]
    apart = [replace(p, images=tuple(replace(image, key="") for image in p.images)) for p in prompts]
    asked: list[int] = []
    encode = family_policy.family.encode
    family_policy.family.encode = lambda model, images: (  # type: ignore[method-assign]
        asked.append(len(images)) or encode(model, images)
    )
    with torch.no_grad():
        once, repeated = (encode_images(family_policy, which, None) for which in (prompts, apart))
    assert asked == [3, 5]
    assert once is not None
    assert repeated is not None
    assert once[0][0] is once[2][0]
    for rows, others in zip(once, repeated, strict=True):
        for row, other in zip(rows, others, strict=True):
            assert torch.equal(row, other)


def test_parts_cover_the_model(family_policy: Policy, pictures: list[Image.Image]) -> None:
    """What the image features depend on is vision and projector, and nothing else is."""
    parts = {name: family_policy.family.part_of(name) for name, _ in family_policy.model.named_parameters()}
    assert set(parts.values()) == {"vision", "projector", "language"}
    family_policy.unfreeze("none")
    images = [family_policy.family.read(picture) for picture in pictures[:2]]
    sum(found.square().sum() for found in family_policy.family.encode(family_policy.model, images)).backward()  # type: ignore[union-attr]
    reached = {name for name, p in family_policy.model.named_parameters() if p.grad is not None}
    seeing = {name for name, part in parts.items() if part != "language"}
    assert reached <= seeing
    assert all("post_layernorm" in name for name in seeing - reached), "LLaVA's tower has one layer that is not used"
    named = PROJECTORS[family_policy.model.config.model_type]
    assert {n for n in parts if parts[n] == "projector"} == {n for n in parts if any(part in n for part in named)}
    assert all(parts[name] == "language" for name in parts if "lm_head" in name or "language_model" in name)


def test_published_folder_is_the_same_policy(
    family_policy: Policy, family_folder: Path, pictures: list[Image.Image], tmp_path: Path
) -> None:
    publish_policy(family_policy, family_folder, tmp_path / "published")
    family_policy.processor.save_pretrained(tmp_path / "saved")
    family_policy.model.save_pretrained(tmp_path / "saved")
    attention = family_policy.model.config._attn_implementation
    for name in ("published", "saved"):
        again = load_policy(tmp_path / name, PolicyConfig(attention=attention, device="cpu"))
        _assert_same(again, family_policy, pictures)


@pytest.mark.parametrize("model_type", QWENS)
def test_qwen_folder_in_the_hubs_old_layout_is_the_same_policy(
    pictures: list[Image.Image], tmp_path: Path, model_type: str
) -> None:
    """preprocessor_config.json with min_pixels and max_pixels, chat_template.json and config.json as the hub's."""
    folder = TINY[model_type](tmp_path / "new")
    old = shutil.copytree(folder, tmp_path / "old")
    images = json.loads((old / "processor_config.json").read_text())["image_processor"]
    size = images.pop("size")
    images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    named = json.loads((old / "processor_config.json").read_text())["processor_class"]
    (old / "preprocessor_config.json").write_text(json.dumps({**images, "processor_class": named}))
    template = (old / "chat_template.jinja").read_text()
    (old / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (old / "chat_template.jinja").unlink()
    (old / "processor_config.json").unlink()
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps(_as_on_the_hub(config)))
    new = load_policy(folder, PolicyConfig(device="cpu"))
    policy = load_policy(old, PolicyConfig(device="cpu"))
    _assert_same(policy, new, pictures)
    publish_policy(policy, old, tmp_path / "published")
    _assert_same(load_policy(tmp_path / "published", PolicyConfig(device="cpu")), new, pictures)


@pytest.mark.parametrize("model_type", ["gemma3", "internvl", "llava"])
def test_folder_in_the_hubs_old_layout_is_the_same_policy(
    pictures: list[Image.Image], tmp_path: Path, model_type: str
) -> None:
    """preprocessor_config.json and chat_template.json beside processor_config.json; the image processor a fast one."""
    folder = TINY[model_type](tmp_path / "new")
    old = shutil.copytree(folder, tmp_path / "old")
    described = json.loads((old / "processor_config.json").read_text())
    images = described.pop("image_processor")
    images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil") + "Fast"
    (old / "preprocessor_config.json").write_text(json.dumps(images))
    (old / "processor_config.json").write_text(json.dumps(described))
    template = (old / "chat_template.jinja").read_text()
    (old / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (old / "chat_template.jinja").unlink()
    _assert_same(
        load_policy(old, PolicyConfig(device="cpu")), load_policy(folder, PolicyConfig(device="cpu")), pictures
    )


@pytest.mark.parametrize("model_type", QWENS)
def test_qwen_refuses_sizes_it_cannot_take(tmp_path: Path, model_type: str) -> None:
    policy = load_policy(TINY[model_type](tmp_path), PolicyConfig(device="cpu"))
    with pytest.raises(ShapeError, match=r"20 x 16 pixels.*multiples of 8"):
        policy.family.image_inputs(torch.rand(1, 3, 20, 16))
    with pytest.raises(DataError, match=r"800 x 2 pixels cannot be resized.*aspect ratio"):
        policy.prepare(QUESTION, [Image.new("RGB", (800, 2))])
    with pytest.raises(DataError, match="special token"):
        policy.prepare("What is <|video_pad|>?", [])


def _as_on_the_hub(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json in the words of older transformers; Qwen2's and Qwen2.5's text settings stand at the top."""
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    if config["model_type"].startswith("qwen3_vl"):
        return {**config, "text_config": text}
    text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    del text["model_type"], text["layer_types"], config["vision_config"]["model_type"]
    return {**text, **config}


def _assert_same(policy: Policy, other: Policy, pictures: list[Image.Image]) -> None:
    ours, theirs = (p.prepare(QUESTION, pictures) for p in (policy, other))
    assert ours.token_ids == theirs.token_ids
    for image, twin in zip(ours.images, theirs.images, strict=True):
        assert torch.equal(image.pixel_values, twin.pixel_values)
    scored = [group_logprobs(p, [PromptGroup(ours, [p.encode_completion("Yes")])]) for p in (policy, other)]
    assert torch.equal(scored[0][0][0], scored[1][0][0])
    assert policy.eos_token_ids == other.eos_token_ids
