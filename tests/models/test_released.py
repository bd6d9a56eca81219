"""The contract on released weights, where somebody has them: MBPO_RELEASED_MODELS names their folders, `:` between.

Everything else here runs on random weights, so that the tests need no download.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from mbpo_core.config import PolicyConfig
from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import check_packing, group_logprobs
from mbpo_core.models.sight import check_sight
from tests.models.oracle import model_inputs, own_logprobs

FOLDERS = [Path(name) for name in os.environ.get("MBPO_RELEASED_MODELS", "").split(":") if name]
QUESTION = "What is in the picture? Answer with one word."

pytestmark = pytest.mark.skipif(not FOLDERS, reason="MBPO_RELEASED_MODELS names no folder")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def released(request: pytest.FixtureRequest) -> Policy:
    """In float32, on the CPU: what is compared here is exact only there."""
    return load_policy(request.param, PolicyConfig(device="cpu"))


def test_prompt_equals_the_processor(released: Policy, pictures: list[Image.Image]) -> None:
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
    text = released.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    made = released.processor(images=pictures[:2], text=text, return_tensors="pt")
    prompt = released.prepare(QUESTION, pictures[:2])
    assert prompt.token_ids == made["input_ids"][0].tolist()
    assert torch.equal(
        model_inputs(released, prompt.images, made["input_ids"])["pixel_values"].float(), made["pixel_values"].float()
    )


def test_packed_rows_equal_the_models_own_forward(released: Policy, demo_images: list[Image.Image]) -> None:
    check_sight(released)
    answers = [released.encode_completion(text) for text in ("A car.", "Yes", "It is a red car on a green field.")]
    group = PromptGroup(released.prepare(QUESTION, demo_images[:1]), answers)
    check_packing(released, [group])
    with torch.no_grad():
        ours, own = (group_logprobs(released, [group]), own_logprobs(released, [group]))
    for row, other in zip(ours[0], own[0], strict=True):
        torch.testing.assert_close(row, other, atol=1e-3, rtol=1e-3)


def test_an_answer_ends(released: Policy, demo_images: list[Image.Image]) -> None:
    ((answer,),) = generate(released, [released.prepare(QUESTION, demo_images[:1])], max_new_tokens=32)
    assert answer.finish_reason == "stop", answer.text
    assert answer.text
