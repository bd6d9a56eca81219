"""vLLM up to its border: what it is handed, by the names of its released version, and what is read out of its answer.

Where vLLM is installed the names are read from it, and not from `vllm_interface.json`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import PolicyConfig, RolloutsConfig
from mbpo_core.errors import DataError, EngineError
from mbpo_core.models.families import FAMILIES
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.records import Sample
from mbpo_core.rollouts.engines.vllm import (
    BAN,
    engine_arguments,
    own_device,
    read_output,
    request,
    sampling_arguments,
)

INTERFACE: dict[str, Any] = json.loads((Path(__file__).parent / "vllm_interface.json").read_text())
installed = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


@dataclass
class Logprob:
    logprob: float


@dataclass
class CompletionOutput:
    index: int
    token_ids: tuple[int, ...]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = "stop"


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


def output(index: int, ids: list[int], logprobs: list[float], reason: str = "stop") -> CompletionOutput:
    """As vLLM gives it with logprobs=0: the drawn token alone at each place, EOS and its log-prob included."""
    said = [{token: Logprob(value)} for token, value in zip(ids, logprobs, strict=True)]
    return CompletionOutput(index, tuple(ids), said, reason)


def prompt_of(policy: Policy, sample: Sample) -> Prompt:
    return policy.prepare(sample.question, [open_image(image) for image in sample.images])


def test_every_argument_has_a_name_of_the_released_version(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    config = RolloutsConfig(engine="vllm")
    engine = engine_arguments(Path("/models/tiny"), PolicyConfig(), config)
    assert engine.keys() <= set(INTERFACE["EngineArgs"])
    assert engine["logprobs_mode"] in INTERFACE["LogprobsMode"]
    assert sampling_arguments(demo_policy, config, 1).keys() <= set(INTERFACE["SamplingParams"])
    assert request(demo_policy, offline_samples[0], config).keys() <= set(INTERFACE["TokensPrompt"])
    assert {field.name for field in dataclasses.fields(CompletionOutput)} <= set(INTERFACE["CompletionOutput"])
    assert {field.name for field in dataclasses.fields(RequestOutput)} <= set(INTERFACE["RequestOutput"])
    assert {"prompts", "sampling_params", "use_tqdm"} <= set(INTERFACE["generate"])


@installed
def test_the_names_are_those_of_the_installed_version() -> None:
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.outputs import CompletionOutput as Theirs

    def names(of: Callable[..., Any]) -> set[str]:
        return set(inspect.signature(of).parameters)

    assert set(INTERFACE["EngineArgs"]) <= names(EngineArgs)
    assert set(INTERFACE["SamplingParams"]) <= set(SamplingParams.__struct_fields__)
    assert set(INTERFACE["generate"]) <= names(LLM.generate)
    assert set(INTERFACE["CompletionOutput"]) <= {field.name for field in dataclasses.fields(Theirs)}


def test_the_recorded_distribution_is_the_sampled_one(demo_policy: Policy) -> None:
    """No nucleus, no top-k, no penalties; temperature and bans inside what the log-probs are of; nothing remote."""
    config = RolloutsConfig(engine="vllm", group_size=5, temperature=0.7, max_new_tokens=9, vllm_memory=0.4)
    engine = engine_arguments(Path("/models/tiny"), PolicyConfig(dtype="bfloat16"), config)
    assert engine == {
        "model": "/models/tiny", "dtype": "bfloat16", "trust_remote_code": False, "seed": 0,
        "generation_config": "vllm", "logprobs_mode": "processed_logprobs", "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 1, "video": 0}, "max_model_len": -1, "gpu_memory_utilization": 0.4,
    }  # fmt: skip
    params = sampling_arguments(demo_policy, config, 2**62 + 3)
    assert params == {
        "n": 5, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 9,
        "stop_token_ids": demo_policy.eos_token_ids, "logprobs": 0, "seed": 3, "detokenize": False,
        "logit_bias": dict.fromkeys(demo_policy.banned_token_ids, BAN),
    }  # fmt: skip


def test_a_ban_by_bias_leaves_the_distribution_that_the_trainer_scores(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    """-100 on a logit against leaving the id out of the softmax, on logits of the demo."""
    head = demo_policy.head
    states = torch.randn((4, head.weight.shape[1]), generator=torch.Generator().manual_seed(0)) * 4
    free = states @ head.weight.detach().T
    biased = free.clone()
    biased[:, demo_policy.banned_token_ids] += BAN
    kept = [token for token in range(free.shape[1]) if token not in demo_policy.banned_token_ids]
    ours = head.logits(states, 0.7).detach().log_softmax(-1)[:, kept]
    assert torch.allclose((biased / 0.7).log_softmax(-1)[:, kept], ours, atol=1e-5)
    assert (biased / 0.7).softmax(-1)[:, demo_policy.banned_token_ids].max() < 1e-30


def test_a_prompt_has_one_placeholder_an_image(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    sample, config = offline_samples[0], RolloutsConfig(engine="vllm")
    asked = request(demo_policy, sample, config)
    whole = prompt_of(demo_policy, sample).token_ids
    slot = demo_policy.banned_token_ids[0]
    assert asked["prompt_token_ids"].count(slot) == 1
    assert whole.count(slot) > 1
    assert [t for t in asked["prompt_token_ids"] if t != slot] == [t for t in whole if t != slot]
    (picture,) = asked["multi_modal_data"]["image"]
    assert picture.tobytes() == open_image(sample.images[0]).tobytes()
    text_only = sample.model_copy(update={"images": []})
    assert "multi_modal_data" not in request(demo_policy, text_only, config)
    two = sample.model_copy(update={"images": sample.images * 2})
    with pytest.raises(DataError, match=r"has 2 images and rollouts\.vllm_images is 1"):
        request(demo_policy, two, config)
    assert request(demo_policy, two, RolloutsConfig(vllm_images=2))["prompt_token_ids"].count(slot) == 2


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_can_write_a_prompt_whose_images_are_not_filled(
    family: str, tmp_path: Path, offline_samples: list[Sample]
) -> None:
    """The filled prompt is the unfilled one with something in the place of each placeholder, and nothing else."""
    from tests.models.tiny import TINY

    folder = TINY[family](tmp_path)
    policy = load_policy(folder, PolicyConfig(model=str(folder), device="cpu"))
    sample = offline_samples[1].model_copy(update={"question": "What is it?"})
    unfilled, whole = policy.unfilled(sample.question, 1), prompt_of(policy, sample).token_ids
    slots = [place for place, token in enumerate(unfilled) if token in policy.banned_token_ids]
    assert slots
    before, after = slots[0], len(unfilled) - slots[-1] - 1
    assert whole[:before] == unfilled[:before]
    assert whole[len(whole) - after :] == unfilled[len(unfilled) - after :]
    assert len(whole) > len(unfilled)


def test_answers_are_read_in_the_order_of_their_index(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    prompt = prompt_of(demo_policy, offline_samples[0])
    red, eos = demo_policy.encode_completion("red"), demo_policy.eos_token_ids[0]
    assert red[-1] == eos
    answered = RequestOutput(
        list(prompt.token_ids), [output(1, red[:-1], [-0.5], "length"), output(0, red, [-0.1, -0.2])]
    )
    first, second = read_output(demo_policy, prompt, answered)
    assert (first.token_ids, first.logprobs, first.finish_reason, first.text) == (red, [-0.1, -0.2], "stop", "red")
    assert (second.token_ids, second.logprobs, second.finish_reason) == (red[:-1], [-0.5], "length")


def test_another_prompt_or_no_answer_is_an_error(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    prompt = prompt_of(demo_policy, offline_samples[0])
    red = demo_policy.encode_completion("red")
    with pytest.raises(EngineError, match=r"read a prompt of \d+ tokens.*rollouts\.engine: transformers"):
        read_output(demo_policy, prompt, RequestOutput(prompt.token_ids[1:], [output(0, red, [-0.1, -0.2])]))
    for broken in (
        output(0, red, [-0.1, -0.2], "abort"),
        output(0, [], []),
        CompletionOutput(0, tuple(red), None),
        CompletionOutput(0, tuple(red), [{red[0]: Logprob(-0.1)}]),
    ):
        with pytest.raises(EngineError, match="stop or length, and a log-prob a token"):
            read_output(demo_policy, prompt, RequestOutput(list(prompt.token_ids), [broken]))


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ({}, {}),
        ({"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "4,5"}),
        ({"LOCAL_RANK": "1", "RANK": "3", "WORLD_SIZE": "4"}, {"CUDA_VISIBLE_DEVICES": "1"}),
        ({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "4,5", "MASTER_PORT": "1"}, {"CUDA_VISIBLE_DEVICES": "5"}),
    ],
)
def test_the_engine_s_process_sees_one_accelerator_and_no_launcher(
    before: dict[str, str], inside: dict[str, str]
) -> None:
    environment = {"HOME": "/here", **before}
    with own_device(environment):
        assert environment == {"HOME": "/here", **inside}
    assert environment == {"HOME": "/here", **before}


@installed
@pytest.mark.skipif(not torch.cuda.is_available(), reason="vLLM's engine needs an accelerator")
def test_it_samples_from_the_policy(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """On an accelerator: recorded log-probs are the trainer's but for arithmetic, groups differ, seeds repeat."""
    from mbpo_core.models.groups import PromptGroup
    from mbpo_core.models.resolve import resolve_model
    from mbpo_core.models.scoring import group_logprobs
    from mbpo_core.rollouts.engines.vllm import VllmEngine

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    policy_config = PolicyConfig(model="demo:absolute", device="cpu")
    config = RolloutsConfig(engine="vllm", group_size=4, temperature=1.5, vllm_memory=0.3)
    few = offline_samples[:4]
    prompts = [prompt_of(demo_policy, sample) for sample in few]
    engine = VllmEngine(demo_policy, resolve_model(policy_config), policy_config, config)
    try:
        answers = engine.answer(few, prompts, [1, 2, 3, 4])
        again = engine.answer(few, prompts, [1, 2, 3, 4])
    finally:
        engine.close()
    assert [[one.token_ids for one in group.completions] for group in answers] == [
        [one.token_ids for one in group.completions] for group in again
    ]
    gaps = []
    for prompt, group in zip(prompts, answers, strict=True):
        tokens = [one.token_ids for one in group.completions]
        scored = group_logprobs(demo_policy, [PromptGroup(prompt, tokens)], temperature=1.5)[0]
        for one, own in zip(group.completions, scored, strict=True):
            gaps += (torch.tensor(one.logprobs) - own).abs().tolist()
    assert sum(gaps) / len(gaps) < 0.02
    assert len({tuple(one.token_ids) for group in answers for one in group.completions}) > 4
