"""Prompts and completions are tokenised as the processor and the chat template would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DataError, ModelError
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.records import Message, Part

ANSWERS = ["The banana is yellow.", "Yes", "A", "3", "The image shows a red car and a blue bell.", "grün, ü!"]


def test_prepare_equals_the_processor(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is the car?"}]}]
    text = demo_policy.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    expected = demo_policy.processor(images=demo_images[0], text=text, return_tensors="pt")
    prompt = demo_policy.prepare("What color is the car?", demo_images[:1])
    assert prompt.token_ids == expected["input_ids"][0].tolist()
    assert torch.equal(torch.stack([image.pixel_values for image in prompt.images]), expected["pixel_values"])
    as_records = [Message(role="user", content=[Part(type="image"), Part(type="text", text="What color is the car?")])]
    assert demo_policy.prepare(as_records, demo_images[:1]).token_ids == prompt.token_ids


@pytest.mark.parametrize("answer", ANSWERS)
def test_completion_continues_the_prompt_as_the_chat_template_does(
    demo_policy: Policy, demo_images: list[Image.Image], answer: str
) -> None:
    prompt = demo_policy.prepare("What color is the car?", demo_images[:1])
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is the car?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    text = demo_policy.processor.apply_chat_template(messages, tokenize=False)
    whole = demo_policy.processor(images=demo_images[0], text=text, return_tensors="pt")["input_ids"][0].tolist()
    completion = demo_policy.encode_completion(answer)
    assert prompt.token_ids + completion == whole
    assert completion[-1] == demo_policy.tokenizer.eos_token_id
    assert demo_policy.decode(completion) == answer
    assert demo_policy.encode_completion(f"  {answer}\n") == completion


def test_native_path_equals_the_processor(demo_policy: Policy) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in ((48, 48), (90, 61), (30, 47)):
        pixels = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8).numpy()
        picture = Image.fromarray(pixels)
        native = demo_policy.family.native(picture)
        ours = demo_policy.family.image_inputs(native[None] / 255)[0].pixel_values
        assert (ours - demo_policy.prepare("?", [picture]).images[0].pixel_values).abs().max() < 1e-6
        again = demo_policy.family.native(Image.fromarray(native.permute(1, 2, 0).numpy()))
        assert torch.equal(again, native), "an image of native size must pass the processor unchanged"


def test_blind_pixels_are_mean_and_black(demo_policy: Policy) -> None:
    image = demo_policy.family.image_input(torch.rand(3, 48, 48))
    mean, black = (demo_policy.family.blinded(image, blind) for blind in ("mean", "black"))
    assert torch.equal(mean.pixel_values, torch.zeros(3, 48, 48))
    assert torch.allclose(black.pixel_values, demo_policy.family.normalise(torch.zeros(1, 3, 48, 48))[0])
    assert (mean.features, mean.grid) == (image.features, image.grid)
    assert mean.key != black.key


def test_several_images_and_none(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    image_token = demo_policy.banned_token_ids[0]
    for count in (0, 1, 3):
        prompt = demo_policy.prepare("What color is the car?", demo_images[:count])
        assert prompt.token_ids.count(image_token) == 36 * count
        assert len(prompt.images) == count


def test_bad_prompts_are_refused(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    with pytest.raises(DataError, match="special token '<image>'"):
        demo_policy.prepare("What is <image>?", demo_images[:1])
    with pytest.raises(DataError, match="special image tokens"):
        demo_policy.encode_completion("It is <image>.")
    message = Message(role="user", content=[Part(type="text", text="Where?")])
    with pytest.raises(DataError, match="0 image parts but 1 images"):
        demo_policy.prepare([message], demo_images[:1])


def test_placeholders_that_do_not_fit_the_tower_are_refused(tiny_folder: Path, demo_images: list[Image.Image]) -> None:
    policy = load_policy(tiny_folder, PolicyConfig(device="cpu"))
    policy.model.config.vision_config.patch_size = 16
    group = PromptGroup(policy.prepare("Yes?", demo_images[:1]), [[1]])
    with pytest.raises(ModelError, match="9 image positions but the vision tower yields 36"):
        group_logprobs(policy, [group])


def test_parameters_are_frozen_until_unfrozen(tiny_policy: Policy) -> None:
    assert not any(parameter.requires_grad for parameter in tiny_policy.model.parameters())
    assert not tiny_policy.model.training
    everything = set(tiny_policy.unfreeze("none"))
    language = set(tiny_policy.unfreeze("vision_and_projector"))
    without_tower = set(tiny_policy.unfreeze("vision"))
    seeing = set(tiny_policy.unfreeze("language"))
    assert language < without_tower < everything
    assert seeing == everything - language
    assert {name.split(".")[1] for name in without_tower - language} == {"multi_modal_projector"}


def test_missing_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "q_proj" in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing"):
        load_policy(folder, PolicyConfig(device="cpu"))


def test_template_whose_answer_does_not_continue_the_prompt_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("{{ 'ASSISTANT:' }}", "{{ 'ASSISTANT:<think>' }}"))
    with pytest.raises(ModelError, match="does not continue its generation prompt"):
        load_policy(folder, PolicyConfig(device="cpu")).encode_completion("Yes")


def test_all_ids_that_end_a_completion_are_known(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [7, 2]}))
    assert load_policy(folder, PolicyConfig(device="cpu")).eos_token_ids == [2, 7]
