"""A server that speaks OpenAI's chat protocol as an engine: it says something, and the policy says how likely that was.

Such a server gives text. Training needs this tokenizer's ids and log-probs of this policy at this temperature, so every
answer is tokenised again and scored here, teacher-forced: the ratio's denominator is exact, and that the server samples
from the same weights is an assumption, which is measured where it tells log-probs of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import ConfigError, EngineError
from mbpo_core.generation.generate import Generated
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.records import Sample
from mbpo_core.rollouts.engines.addresses import is_loopback
from mbpo_core.rollouts.engines.base import Answers
from mbpo_core.rollouts.engines.messages import chat_messages
from mbpo_core.seeds import derive_seed

KEY = "MBPO_ENDPOINT_KEY"
"""Environment variable that holds the key; it is written nowhere."""

_REFUSED = (400, 422)
"""What servers answer to a field that they do not know."""


@dataclass(frozen=True)
class Reply:
    """One choice of a server's answer.

    Attributes:
        finished: the model ended it; otherwise it was cut off.
        logprobs: the server's own, a token each, nats; None where it tells none.
    """

    text: str
    finished: bool
    logprobs: list[float] | None = None


@dataclass
class EndpointEngine:
    """Asks a server and scores its answers.

    Attributes:
        policy: tokenises and scores; the round's.
        offered: optional fields of a request that the server has not refused so far.
    """

    policy: Policy
    config: RolloutsConfig
    offered: set[str] = field(default_factory=lambda: {"n", "logprobs", "seed"})

    def __post_init__(self) -> None:
        from openai import DefaultHttpxClient, OpenAI

        self._client = OpenAI(
            base_url=self.config.endpoint_url,
            api_key=os.environ.get(KEY) or "none",  # never the key of another service that the environment may hold
            timeout=self.config.endpoint_timeout_s,
            max_retries=self.config.endpoint_retries,
            # A redirect would carry pictures to where nobody allowed them to go; no proxy leads to this machine.
            http_client=DefaultHttpxClient(
                follow_redirects=False,
                timeout=self.config.endpoint_timeout_s,
                trust_env=not is_loopback(urlsplit(self.config.endpoint_url).hostname or ""),
            ),
        )
        self._model = self.config.endpoint_model or self._only_model()

    def answer(self, samples: Sequence[Sample], prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Answers]:
        """Requests go out side by side; answers are scored together.

        Raises:
            EngineError: the server cannot be reached, refuses, or answers otherwise than the protocol says.
        """
        with ThreadPoolExecutor(self.config.endpoint_parallel) as pool:
            replies = list(pool.map(self._ask, samples, seeds))
        return score_replies(self.policy, prompts, replies, self.config)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, sample: Sample, seed: int) -> list[Reply]:
        """G replies, in as few requests as the server has it; one that ignores `n` is asked again."""
        messages, replies = chat_messages(sample), list[Reply]()
        while len(replies) < self.config.group_size:
            wanted = self.config.group_size - len(replies)
            choices = self._request(messages, wanted, derive_seed(seed, len(replies)) % 2**31).choices
            if not choices:
                raise self._error("the answer has no choices", "at least one")
            replies += [read_choice(one) for one in choices[:wanted]]
        return replies

    def _request(self, messages: list[dict[str, Any]], wanted: int, seed: int) -> Any:
        """A server that refuses fields it does not know is asked without the optional ones, from then on."""
        import openai

        needed: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": self.config.temperature,
            "top_p": 1.0,
            "max_tokens": self.config.max_new_tokens,
        }
        optional = {"n": wanted, "logprobs": True, "seed": seed}
        while True:
            offered = set(self.offered)
            asked = needed | {name: value for name, value in optional.items() if name in offered}
            try:
                return self._client.chat.completions.create(**asked)
            except openai.APIStatusError as error:
                said = error.response.text
                if error.status_code in _REFUSED and offered:
                    self.offered -= named(said, offered) or offered
                    continue
                raise self._error(f"it answered {error.status_code}: {said}", "an answer") from None
            except openai.APIConnectionError as error:  # time-outs too
                raise self._error(f"{error} {error.__cause__ or ''}".strip(), "a connection and an answer") from None
            except openai.OpenAIError as error:
                raise self._error(str(error), "an answer in OpenAI's protocol") from None

    def _only_model(self) -> str:
        import openai

        try:
            names: list[str] = [model.id for model in self._client.models.list()]
        except openai.OpenAIError as error:
            raise self._error(f"its models cannot be listed: {error}", "a list of models") from None
        if len(names) != 1:
            raise ConfigError(
                f"rollouts.endpoint_model is empty and the server lists {len(names)} models: {', '.join(names[:5])}",
                where=self.config.endpoint_url,
                remedy="Set rollouts.endpoint_model to the one that has this round's weights.",
            )
        return names[0]

    def _error(self, what: str, expected: str) -> EngineError:
        secret = os.environ.get(KEY)
        said = what.replace(secret, "***") if secret else what
        return EngineError(
            said[:400],
            where=f"rollouts.endpoint_url {self.config.endpoint_url}",
            expected=expected,
            remedy=f"See the server's log; a key goes into {KEY}. Finished parts are kept: run again once it answers.",
        )


def named(message: str, fields: set[str]) -> set[str]:
    """Those of the fields that a server's refusal names, as quoted words."""
    return {name for name in fields if f"'{name}'" in message or f'"{name}"' in message or f"`{name}`" in message}


def read_choice(choice: Any) -> Reply:
    """A choice of a chat completion."""
    content = choice.logprobs.content if choice.logprobs else None
    logprobs = [float(token.logprob) for token in content] if content else None
    return Reply(choice.message.content or "", choice.finish_reason == "stop", logprobs)


def score_replies(
    policy: Policy, prompts: Sequence[Prompt], replies: Sequence[Sequence[Reply]], config: RolloutsConfig
) -> list[Answers]:
    """Replies as completions of the policy.

    Args:
        policy: tokenises, and scores at `config.temperature`.
        prompts: P prompts.
        replies: G replies to each.

    Returns:
        P answers with the policy's log-probs. `gap` compares the server's with the policy's at temperature 1, of which
        such servers tell, over replies that both cut into as many tokens.
    """
    tokens = [[tokenised(policy, reply, config.max_new_tokens) for reply in several] for several in replies]
    groups = [PromptGroup(prompt, [ids for ids, _ in several]) for prompt, several in zip(prompts, tokens, strict=True)]
    scores = _score(policy, groups, config.temperature)
    told = any(reply.logprobs for several in replies for reply in several)
    plain = scores if config.temperature == 1.0 or not told else _score(policy, groups, 1.0)
    answers = []
    for several, ids, found, cold in zip(replies, tokens, scores, plain, strict=True):
        completions = [
            Generated(one, logprobs, "stop" if finished else "length", policy.decode(one))
            for (one, finished), logprobs in zip(ids, found, strict=True)
        ]
        gaps = [abs(a - b) for reply, own in zip(several, cold, strict=True) for a, b in paired(reply, own)]
        answers.append(Answers(completions, sum(gaps) / len(gaps) if gaps else None))
    return answers


def tokenised(policy: Policy, reply: Reply, limit: int) -> tuple[list[int], bool]:
    """The ids of a reply, and whether it is whole: EOS stands at its end then, and only then.

    An image's special tokens, which the policy cannot say, are left out. A reply that this tokenizer cuts into more
    than `limit` tokens ends there; one without text is EOS alone.
    """
    text = reply.text
    for token in policy.tokenizer.convert_ids_to_tokens(policy.banned_token_ids):
        text = text.replace(token, "")
    if not text.strip():
        return policy.eos_token_ids[:1], True
    ids = policy.encode_completion(text)
    if reply.finished and len(ids) <= limit:
        return ids, True
    return ids[:-1][:limit], False


def paired(reply: Reply, own: Sequence[float]) -> list[tuple[float, float]]:
    """The server's log-prob of each token beside the policy's; empty where they cut the text differently.

    Some servers leave EOS out.
    """
    told = reply.logprobs or []
    if len(told) == len(own) or (reply.finished and len(told) == len(own) - 1):
        return list(zip(told, own, strict=False))
    return []


def _score(policy: Policy, groups: Sequence[PromptGroup], temperature: float) -> list[list[list[float]]]:
    return [[row.tolist() for row in rows] for rows in group_logprobs(policy, groups, temperature=temperature)]
