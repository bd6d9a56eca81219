"""vLLM as an engine: the round's weights in paged memory, G completions of a prompt behind one cached prefix.

Written against vLLM 0.33. What is handed over and what comes back are pure functions; the engine between them needs an
accelerator (docs/untested.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbpo_core.config import PolicyConfig, RolloutsConfig
from mbpo_core.errors import DataError, EngineError
from mbpo_core.generation.generate import Generated
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.records import Sample
from mbpo_core.rollouts.engines.base import Answers

BAN = -100.0
"""Added to the logit of an id that must not be drawn; what is left of its probability is nothing in float32."""

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class VllmEngine:
    """One engine a process, on the process's own accelerator.

    The recorded log-probs are the engine's, of the distribution it drew from: temperature and bans applied. The trainer
    measures how far its own lie from them, and corrects for it (`training.rollout_correction`).

    Args:
        policy: on the CPU; renders prompts and decodes answers.
        folder: its weights, which the engine loads once more.
    """

    def __init__(self, policy: Policy, folder: Path, policy_config: PolicyConfig, config: RolloutsConfig) -> None:
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM, SamplingParams

        self._policy, self._config, self._sampling = policy, config, SamplingParams
        with own_device():
            self._llm = LLM(**engine_arguments(folder, policy_config, config))

    def answer(self, samples: Sequence[Sample], prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Answers]:
        """A prompt that vLLM reads otherwise than the trainer is an error, not a mismatch."""
        asked = [request(self._policy, sample, self._config) for sample in samples]
        params = [self._sampling(**sampling_arguments(self._policy, self._config, seed)) for seed in seeds]
        outputs = self._llm.generate(asked, params, use_tqdm=False)
        return [
            Answers(read_output(self._policy, prompt, output)) for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def close(self) -> None:
        """End the engine's process, which gives the accelerator back."""
        self._llm.llm_engine.engine_core.shutdown()


def engine_arguments(folder: Path, policy_config: PolicyConfig, config: RolloutsConfig) -> dict[str, Any]:
    """Arguments of `vllm.LLM`."""
    return {
        "model": str(folder),
        "dtype": policy_config.dtype,
        "trust_remote_code": False,
        "seed": 0,  # every request has its own
        "generation_config": "vllm",  # nothing of generation_config.json: no nucleus, no top-k
        "logprobs_mode": "processed_logprobs",  # of what is drawn from, temperature and bans applied
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": config.vllm_images, "video": 0},
        "max_model_len": -1,  # the model's own, or what fits
        "gpu_memory_utilization": config.vllm_memory,
    }


def sampling_arguments(policy: Policy, config: RolloutsConfig, seed: int) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams` for one prompt; completion i draws by seed + i."""
    return {
        "n": config.group_size,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "max_tokens": config.max_new_tokens,
        "stop_token_ids": policy.eos_token_ids,
        "logit_bias": dict.fromkeys(policy.banned_token_ids, BAN),
        "logprobs": 0,  # of the token that was drawn, and no other
        "seed": seed % 2**62,
        "detokenize": False,
    }


def request(policy: Policy, sample: Sample, config: RolloutsConfig) -> dict[str, Any]:
    """A prompt as `LLM.generate` takes it: one placeholder an image, which vLLM expands.

    Raises:
        DataError: more images than memory was set aside for.
    """
    count = len(sample.images)
    if count > config.vllm_images:
        raise DataError(
            f"the sample has {count} images and rollouts.vllm_images is {config.vllm_images}",
            where=f"sample {sample.sample_id}",
            remedy="Raise rollouts.vllm_images.",
        )
    asked: dict[str, Any] = {"prompt_token_ids": policy.unfilled(sample.question, count)}
    if count:
        asked["multi_modal_data"] = {"image": [open_image(image) for image in sample.images]}
    return asked


def read_output(policy: Policy, prompt: Prompt, output: Any) -> list[Generated]:
    """The completions of a `vllm.RequestOutput`, in the order of their index.

    Raises:
        EngineError: the engine read another prompt than the trainer will, or gave something else than answers.
    """
    if list(output.prompt_token_ids) != prompt.token_ids:
        raise EngineError(
            f"vLLM read a prompt of {len(output.prompt_token_ids)} tokens, the trainer reads {len(prompt.token_ids)}, "
            "or others",
            where=policy.where,
            expected="the same ids, every image expanded alike",
            remedy="This model's images are cut in another way there; use rollouts.engine: transformers.",
        )
    return [_read(policy, one) for one in sorted(output.outputs, key=lambda one: one.index)]


def _read(policy: Policy, output: Any) -> Generated:
    token_ids = [int(token) for token in output.token_ids]
    if not token_ids or output.finish_reason not in ("stop", "length") or len(output.logprobs or ()) != len(token_ids):
        raise EngineError(
            f"vLLM ended a completion of {len(token_ids)} tokens by {output.finish_reason!r}, with "
            f"{len(output.logprobs or ())} log-probs",
            where=policy.where,
            expected="stop or length, and a log-prob a token",
        )
    logprobs = [float(said[token].logprob) for token, said in zip(token_ids, output.logprobs, strict=True)]
    stopped = token_ids[-1] in policy.eos_token_ids
    return Generated(token_ids, logprobs, "stop" if stopped else "length", policy.decode(token_ids))


@contextmanager
def own_device(environment: Any = os.environ) -> Iterator[None]:
    """Show what is started meanwhile one accelerator alone, and no launcher.

    vLLM's engine is a process of its own that takes the first accelerator it sees; a launched worker's is the one of
    its local rank.
    """
    before: Mapping[str, str] = dict(environment)
    rank = before.get("LOCAL_RANK")
    if rank is not None:
        visible = [one for one in before.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
        environment["CUDA_VISIBLE_DEVICES"] = visible[int(rank)] if visible else rank
    for name in _LAUNCHED:
        environment.pop(name, None)
    try:
        yield
    finally:
        for name in ("CUDA_VISIBLE_DEVICES", *_LAUNCHED):
            environment.pop(name, None)
            if name in before:
                environment[name] = before[name]
