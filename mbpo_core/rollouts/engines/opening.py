"""Which engine a config names: checked before anything is loaded, then opened with the round's weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbpo_core.config import PolicyConfig, RolloutsConfig
from mbpo_core.errors import ConfigError
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.sight import check_sight
from mbpo_core.rollouts.engines.addresses import check_address
from mbpo_core.rollouts.engines.base import Engine, PolicyEngine

_PACKAGES = {"vllm": "vllm", "endpoint": "openai"}
"""What an engine needs besides: the package; the extra is called as the engine."""


def check_engine(config: RolloutsConfig) -> None:
    """Refuse what cannot work, before a model is loaded.

    Raises:
        ConfigError: the engine's package is not installed, or the endpoint's address is missing or not allowed.
    """
    package = _PACKAGES.get(config.engine)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"rollouts.engine is {config.engine} and the package {package} is not installed",
            remedy=f"pip install 'mbpo[{config.engine}]', or set rollouts.engine: transformers.",
        )
    if config.engine == "endpoint":
        check_address(config.endpoint_url)


@contextmanager
def opened(folder: Path, policy_config: PolicyConfig, config: RolloutsConfig) -> Iterator[tuple[Policy, Engine]]:
    """The policy, which renders prompts, and the engine that samples from it; closed at the end.

    vLLM holds the weights on the accelerator itself: the policy is then loaded on the CPU.
    """
    if config.engine == "vllm":
        policy_config = policy_config.model_copy(update={"device": "cpu"})
    policy = load_policy(folder, policy_config)
    check_sight(policy)
    engine = _open(policy, folder, policy_config, config)
    try:
        yield policy, engine
    finally:
        engine.close()


def _open(policy: Policy, folder: Path, policy_config: PolicyConfig, config: RolloutsConfig) -> Engine:
    if config.engine == "vllm":
        from mbpo_core.rollouts.engines.vllm import VllmEngine

        return VllmEngine(policy, folder, policy_config, config)
    if config.engine == "endpoint":
        from mbpo_core.rollouts.engines.endpoint import EndpointEngine

        return EndpointEngine(policy, config)
    return PolicyEngine(policy, config)
