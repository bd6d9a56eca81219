"""Nothing leaves the machine for an address that whoever runs the worker has not declared."""

from __future__ import annotations

import pytest

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import ConfigError
from mbpo_core.rollouts.engines.addresses import DECLARED, check_address
from mbpo_core.rollouts.engines.opening import check_engine


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "https://127.8.9.1/v1", "http://[::1]:8000/v1"]
)
def test_this_machine_needs_no_word(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DECLARED, raising=False)
    check_address(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "endpoint_url is empty"),
        ("ftp://127.0.0.1/v1", "expected http"),
        ("127.0.0.1:8000", "expected http"),
        ("https://user:secret@127.0.0.1/v1", "carries a user"),
        ("http://127.0.0.1/v1?key=secret", "carries a user"),
        ("https://models.example/v1", "not this machine"),
        ("http://gpu.example:8000/v1", "not this machine"),  # declared, but by https
        ("https://gpu.example:8001/v1", "not this machine"),  # another port
        ("https://gpu.example.evil.example:8000/v1", "not this machine"),
        ("https://localhost.evil.example/v1", "not this machine"),
        ("http://169.254.1.1/v1", "not this machine"),
    ],
)
def test_others_are_refused(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DECLARED, "https://gpu.example:8000")
    with pytest.raises(ConfigError, match=message) as caught:
        check_engine(RolloutsConfig(engine="endpoint", endpoint_url=url))
    assert "secret" not in str(caught.value)


def test_declared_ones_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DECLARED, " https://gpu.example:8000 , http://inside.example/v1")
    check_address("https://gpu.example:8000/other/v1")
    check_address("http://inside.example:80/v1")


def test_an_engine_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package vllm is not installed\. pip install 'mbpo\[vllm\]'"):
        check_engine(RolloutsConfig(engine="vllm"))
    with pytest.raises(ConfigError, match=r"package openai is not installed"):
        check_engine(RolloutsConfig(engine="endpoint"))
    check_engine(RolloutsConfig())
