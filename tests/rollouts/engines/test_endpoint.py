"""What the endpoint engine makes of servers of different manners; each is a real HTTP server of a few lines."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import ConfigError, EngineError
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.records import Sample
from mbpo_core.rollouts.engines.endpoint import KEY, EndpointEngine, Reply, score_replies, tokenised
from mbpo_core.rollouts.engines.messages import chat_messages

Manner = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(request, its number from 0) to (status, JSON)."""


@contextmanager
def serving(manner: Manner, models: tuple[str, ...] = ("tiny",)) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on a free loopback port; its URL, and what it was asked (its Authorization under "key")."""
    asked: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked.append({**body, "key": self.headers["Authorization"]})
                number = len(asked) - 1
            self._send(*manner(body, number))

        def _send(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(*texts: str, reason: str = "stop", logprobs: list[float] | None = None) -> tuple[int, Any]:
    content = None if logprobs is None else {"content": [{"token": "?", "logprob": one} for one in logprobs]}
    choices = [
        {"index": i, "finish_reason": reason, "logprobs": content, "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(texts)
    ]
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": choices}


def config(url: str, **settings: Any) -> RolloutsConfig:
    return RolloutsConfig(
        **{"engine": "endpoint", "endpoint_url": url, "group_size": 3, "max_new_tokens": 8, "endpoint_timeout_s": 10.0,
           "endpoint_retries": 0, "endpoint_parallel": 2, **settings}
    )  # fmt: skip


def prompt_of(policy: Policy, sample: Sample) -> Prompt:
    return policy.prepare(sample.question, [open_image(image) for image in sample.images])


def texts(policy: Policy, sample: Sample, settings: RolloutsConfig, seed: int = 5) -> list[str]:
    engine = EndpointEngine(policy, settings)
    (answers,) = engine.answer([sample], [prompt_of(policy, sample)], [seed])
    engine.close()
    return [one.text for one in answers.completions]


def test_a_question_goes_out_with_its_picture(offline_samples: list[Sample]) -> None:
    sample = offline_samples[0]
    (message,) = chat_messages(sample)
    picture, text = message["content"]
    assert (message["role"], text) == ("user", {"type": "text", "text": sample.question})
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sent.mode == "RGB"
    assert sent.tobytes() == open_image(sample.images[0]).tobytes()


def test_one_request_a_prompt_where_the_server_knows_n(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    with serving(lambda body, _: completion(*["red", "blue", "green"][: body["n"]])) as (url, asked):
        assert texts(demo_policy, offline_samples[0], config(url, temperature=0.7)) == ["red", "blue", "green"]
    (request,) = asked
    assert {name: request[name] for name in ("model", "n", "temperature", "top_p", "max_tokens", "logprobs")} == {
        "model": "tiny", "n": 3, "temperature": 0.7, "top_p": 1.0, "max_tokens": 8, "logprobs": True,
    }  # fmt: skip
    assert "top_k" not in request
    assert 0 <= request["seed"] < 2**31


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    with serving(lambda body, number: completion(["red", "blue", "green"][number])) as (url, asked):
        assert texts(demo_policy, offline_samples[0], config(url)) == ["red", "blue", "green"]
    assert len({request["seed"] for request in asked}) == 3
    assert [request["n"] for request in asked] == [3, 2, 1]


@pytest.mark.parametrize("names_it", [True, False])
def test_fields_that_a_server_refuses_are_left_out_from_then_on(
    demo_policy: Policy, offline_samples: list[Sample], names_it: bool
) -> None:
    def strict(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if "logprobs" in body:
            return 422, {"detail": "unexpected fields: {'logprobs'}" if names_it else "no"}
        return completion(*["red"] * body.get("n", 1))

    with serving(strict) as (url, asked):
        engine = EndpointEngine(demo_policy, config(url))
        few = offline_samples[:1]
        for _ in range(2):
            (answers,) = engine.answer(few, [prompt_of(demo_policy, few[0])], [1])
            assert [one.text for one in answers.completions] == ["red"] * 3
        engine.close()
    assert engine.offered == ({"n", "seed"} if names_it else set())
    assert sum("logprobs" in request for request in asked) == 1


def test_a_busy_server_is_tried_again_and_one_that_stays_busy_is_an_error(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    def busy(body: dict[str, Any], number: int) -> tuple[int, Any]:
        return (503, {"error": "busy"}) if number < 2 else completion("red", "red", "red")

    with serving(busy) as (url, asked):
        assert texts(demo_policy, offline_samples[0], config(url, endpoint_retries=2)) == ["red"] * 3
        assert len(asked) == 3
    with serving(lambda body, number: (503, {"error": "busy"})) as (url, asked):
        with pytest.raises(EngineError, match=r"answered 503: .*busy.*run again once it answers"):
            texts(demo_policy, offline_samples[0], config(url, endpoint_retries=1))
        assert len(asked) == 2


def test_a_server_that_is_not_there_or_speaks_otherwise_is_an_error(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    with serving(lambda body, number: completion()) as (url, _), pytest.raises(EngineError, match="no choices"):
        texts(demo_policy, offline_samples[0], config(url))
    with pytest.raises(EngineError, match=r"models cannot be listed.*Connection"):
        texts(demo_policy, offline_samples[0], config(url))
    with pytest.raises(EngineError, match=r"Connection.*expected a connection"):
        texts(demo_policy, offline_samples[0], config(url, endpoint_model="tiny"))
    with (
        serving(lambda body, number: completion("red"), models=("a", "b")) as (url, _),
        pytest.raises(ConfigError, match="the server lists 2 models: a, b"),
    ):
        texts(demo_policy, offline_samples[0], config(url))


def test_a_redirect_is_not_followed(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    with serving(lambda body, number: completion("red", "red", "red")) as (elsewhere, reached):

        class Redirect(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(307)
                self.send_header("Location", f"{elsewhere}/chat/completions")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            with pytest.raises(EngineError, match="answered 307"):
                texts(demo_policy, offline_samples[0], config(url, endpoint_model="tiny"))
        finally:
            server.shutdown()
            server.server_close()
    assert reached == []


def test_the_key_is_ours_alone_and_never_in_a_message(
    demo_policy: Policy, offline_samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-service")
    with serving(lambda body, number: completion("red", "red", "red")) as (url, asked):
        texts(demo_policy, offline_samples[0], config(url))
        monkeypatch.setenv(KEY, "our-secret")
        texts(demo_policy, offline_samples[0], config(url))
    assert [request["key"] for request in asked] == ["Bearer none", "Bearer our-secret"]
    with (
        serving(lambda body, number: (401, {"error": {"message": "our-secret is no key"}})) as (url, _),
        pytest.raises(EngineError, match=r"401.*\*\*\* is no key") as caught,
    ):
        texts(demo_policy, offline_samples[0], config(url))
    assert "our-secret" not in str(caught.value)


def test_replies_become_completions_of_the_policy(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """Ids and log-probs by `encode_completion` and `group_logprobs`; the gap by hand."""
    sample, settings = offline_samples[0], config("", temperature=0.7)
    prompt, eos = prompt_of(demo_policy, sample), demo_policy.eos_token_ids[0]
    red = demo_policy.encode_completion("red")
    cold = group_logprobs(demo_policy, [PromptGroup(prompt, [red])], temperature=1.0)[0][0].tolist()
    warm = group_logprobs(demo_policy, [PromptGroup(prompt, [red])], temperature=0.7)[0][0].tolist()
    told = [value - 0.25 for value in cold]
    replies = [
        Reply(" red ", True, told),
        Reply("red", True, told[:-1]),
        Reply("red", False),
        Reply("red", True, [0.0] * 9),
    ]
    (answers,) = score_replies(demo_policy, [prompt], [replies], settings)
    assert [one.token_ids for one in answers.completions] == [red, red, red[:-1], red]
    assert [one.finish_reason for one in answers.completions] == ["stop", "stop", "length", "stop"]
    assert answers.completions[0].logprobs == pytest.approx(warm, abs=1e-4)
    assert answers.completions[2].logprobs == pytest.approx(warm[:-1], abs=1e-4)
    assert answers.gap == pytest.approx(0.25, abs=1e-4)  # the last one was cut into other tokens: not compared
    assert not math.isclose(warm[0], cold[0])
    (silent,) = score_replies(demo_policy, [prompt], [[Reply("red", True)] * 2], settings)
    assert silent.gap is None
    assert red[-1] == eos


def test_odd_replies(demo_policy: Policy) -> None:
    eos = demo_policy.eos_token_ids[0]
    red = demo_policy.encode_completion("red")
    assert tokenised(demo_policy, Reply("", True), 4) == ([eos], True)
    assert tokenised(demo_policy, Reply("  ", False), 4) == ([eos], True)  # nothing to cut off
    assert tokenised(demo_policy, Reply("<image>red", True), 4) == (red, True)
    long, whole = tokenised(demo_policy, Reply("The image shows a red banana.", True), 4)
    assert (len(long), whole) == (4, False)
    assert eos not in long
