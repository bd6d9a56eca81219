"""The endpoint engine against a real server of the protocol: `transformers serve`, on a local model, offline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mbpo_core.config import PolicyConfig, RolloutsConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.errors import EngineError
from mbpo_core.execution import execute, plan
from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.progress import NullProgress
from mbpo_core.records import RolloutGroup, Sample
from mbpo_core.rollouts.engines.endpoint import KEY, EndpointEngine
from mbpo_core.stage import PolicyRef
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from tests.samples.helpers import commit_rows

pytestmark = pytest.mark.slow  # the server takes ten seconds and more to import what it needs

POLICY = PolicyConfig(model="demo:absolute", device="cpu")
START_S = 120


@dataclass
class Server:
    url: str
    model: str
    log: Path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(server.url.removesuffix("/v1") + "/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not come up:\n{server.log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo's LLaVA behind the protocol. Its generation config must say that it samples; requests cannot."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(resolve_model(POLICY), folder / "model")
    settings = folder / "model" / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_sample": True, "top_k": 0}))
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}/v1", str(folder / "model"), folder / "log")
    command = [
        sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", server.model,
        "--host", "127.0.0.1", "--port", str(port), "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    with server.log.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def config(server: Server, **settings: object) -> RolloutsConfig:
    return RolloutsConfig.model_validate(
        {
            "engine": "endpoint", "endpoint_url": server.url, "endpoint_model": server.model, "group_size": 3,
            "temperature": 1.5, "endpoint_timeout_s": 60.0, "endpoint_retries": 1, **settings,
        }
    )  # fmt: skip


def prompts_of(policy: Policy, samples: list[Sample]) -> list[Prompt]:
    return [policy.prepare(one.question, [open_image(image) for image in one.images]) for one in samples]


def test_the_server_reads_the_same_pictures_and_prompts_as_the_policy(
    server: Server, demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    """Next to no temperature: what it says is what the policy decodes greedily, picture by picture."""
    few = offline_samples[:8]
    engine = EndpointEngine(demo_policy, config(server, temperature=0.01, group_size=2, endpoint_parallel=2))
    answers = engine.answer(few, prompts_of(demo_policy, few), list(range(8)))
    engine.close()
    greedy = [one[0].text for one in generate(demo_policy, prompts_of(demo_policy, few), max_new_tokens=24)]
    assert [[one.text for one in group.completions] for group in answers] == [[text, text] for text in greedy]
    assert len(set(greedy)) > 4


def test_answers_are_ids_and_log_probs_of_the_policy(
    server: Server, demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    few = [one for one in offline_samples if one.kind == "open"][:2]
    prompts = prompts_of(demo_policy, few)
    engine = EndpointEngine(demo_policy, config(server, max_new_tokens=8, group_size=4))
    answers = engine.answer(few, prompts, [1, 2])
    engine.close()
    for prompt, group in zip(prompts, answers, strict=True):
        assert len(group.completions) == 4  # the server ignores `n`: one request a completion
        assert group.gap is None  # it tells no log-probs of its own
        tokens = [one.token_ids for one in group.completions]
        scored = group_logprobs(demo_policy, [PromptGroup(prompt, tokens)], temperature=1.5)[0]
        for one, own in zip(group.completions, scored, strict=True):
            assert torch.allclose(torch.tensor(one.logprobs), own, atol=1e-5)
            assert (one.finish_reason == "stop") == (one.token_ids[-1] in demo_policy.eos_token_ids)
            assert len(one.token_ids) <= 8
            assert one.text == demo_policy.decode(one.token_ids)
    assert len({one.text for group in answers for one in group.completions}) > 2


def test_a_round_by_the_endpoint_is_an_artifact_to_train_on(server: Server, tmp_path: Path) -> None:
    none = {"eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    samples = list(demo_samples("uniform", 1, DemoCounts(offline=2, online=6, **none)))
    store = Store(tmp_path)
    given = commit_rows(store, "samples", samples)
    reference = PolicyRef(folder=str(resolve_model(POLICY)), digest="digest-of-the-demo")
    planned = plan(
        store, STAGES["rollouts"], config(server, prompts=4), {"samples": given}, {"policy": reference}, POLICY
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "a-secret-key")
        reader = store.reader(execute(store, planned, NullProgress()))
    groups = [RolloutGroup.model_validate(row) for row in reader.rows()]
    assert len(groups) == 4
    assert all(len(group.completions) == 3 for group in groups)
    assert all(value <= 0 for group in groups for one in group.completions for value in one.logprobs)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"a-secret-key" not in written
    assert "a-secret-key" not in server.log.read_text()


def test_what_the_server_refuses_is_said(server: Server, demo_policy: Policy, offline_samples: list[Sample]) -> None:
    engine = EndpointEngine(demo_policy, config(server, endpoint_model="another"))
    few = offline_samples[:1]
    with pytest.raises(EngineError, match=r"it answered 400: .*pinned to.*endpoint_url http://127\.0\.0\.1"):
        engine.answer(few, prompts_of(demo_policy, few), [1])
    engine.close()
