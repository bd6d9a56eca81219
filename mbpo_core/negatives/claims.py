"""Answers taken apart into claims, each checked by the policy itself: divide and conquer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbpo_core.generation.generate import Generated
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.items import Unmade
from mbpo_core.negatives.swaps import uncapitalised
from mbpo_core.verifiers.text import COPULAS, sentences, tokens

SENTENCE = "Is it true that {claim}? Answer yes or no."
"""Asked of a claim that is a sentence."""

FRAGMENT = "{question}\nIs the answer {claim}? Answer yes or no."
"""Asked of an answer that has no verb and says nothing without its question."""

_VERBS = COPULAS | {"has", "have", "shows", "show", "contains", "wears", "stands", "sits", "holds"}
_JOINTS = re.compile(r",?\s+(?:and|but|while|whereas)\s+|;\s+")
_ANSWER = re.compile(r"^(?:yes|no)\b[,:\s]*", re.I)


def split(text: str) -> list[str]:
    """The claims of an answer: its sentences, cut at conjunctions behind which another verb stands."""
    found: list[str] = []
    for sentence in sentences(text):
        start = 0
        for joint in _JOINTS.finditer(sentence):
            if _is_clause(sentence[start : joint.start()]) and _is_clause(sentence[joint.end() :]):
                found.append(sentence[start : joint.start()])
                start = joint.end()
        found.append(sentence[start:])
    return found


def check_question(claim: str, question: str) -> str:
    """The yes/no question that puts a claim to the test; a leading yes or no of the claim says nothing by itself."""
    stated = _ANSWER.sub("", claim)
    if _is_clause(stated):
        return SENTENCE.format(claim=uncapitalised(stated))
    return FRAGMENT.format(claim=claim, question=question)


def score_claims(
    bench: Bench, several: Sequence[Known], answers: Sequence[Sequence[Generated]]
) -> list[list[float] | Unmade]:
    """How many claims of each answer the policy takes for wrong, negated.

        score(y) = -|{claims c of y: p("No" | images, question(c)) >= p("Yes" | images, question(c))}|

    by the first token in which the two differ, on the clean images. Equal questions about a sample are asked once.

    Source: RLAIF-V arXiv:2405.17220, which has a language model find the claims and a stronger model check them.
    """
    asked = [
        [[check_question(claim, known.task.sample.question) for claim in split(one.text)] for one in texts]
        for known, texts in zip(several, answers, strict=True)
    ]
    prompts = [_prompts(bench, known, questions) for known, questions in zip(several, asked, strict=True)]
    denied = iter(_denied(bench, [one for found in prompts if isinstance(found, dict) for one in found.values()]))
    results: list[list[float] | Unmade] = []
    for questions, found in zip(asked, prompts, strict=True):
        if isinstance(found, Unmade):
            results.append(found)
            continue
        wrong = {question: next(denied) for question in found}
        results.append([float(-sum(wrong[question] for question in ones)) for ones in questions])
    return results


def _prompts(bench: Bench, known: Known, questions: Sequence[Sequence[str]]) -> dict[str, Prompt] | Unmade:
    """The prompts of a sample's different questions, or why one cannot be asked."""
    pictures = [open_image(image) for image in known.task.sample.images]
    different = sorted({question for several in questions for question in several})
    prompts = {question: bench.policy.prepare(question, pictures) for question in different}
    needed = max((len(prompt.token_ids) for prompt in prompts.values()), default=0) + len(_yes_and_no(bench)[0])
    if needed <= bench.policy.max_positions:
        return prompts
    return Unmade("prompt_too_long", f"the check of a claim needs {needed} tokens")


def _denied(bench: Bench, prompts: Sequence[Prompt]) -> list[bool]:
    """Whether the policy says no rather than yes."""
    completions = _yes_and_no(bench)

    def ask(few: list[Prompt]) -> list[bool]:
        scored = group_logprobs(bench.policy, [PromptGroup(prompt, completions) for prompt in few])
        return [bool(no[-1] >= yes[-1]) for yes, no in scored]

    return by_length(prompts, lambda prompt: len(prompt.token_ids), bench.settings.batch_size, ask)


def _yes_and_no(bench: Bench) -> list[list[int]]:
    """Both answers, up to the first token in which they differ."""
    yes, no = (bench.policy.encode_completion(word) for word in ("Yes", "No"))
    place = next(place for place, pair in enumerate(zip(yes, no, strict=False)) if pair[0] != pair[1])
    return [yes[: place + 1], no[: place + 1]]


def _is_clause(text: str) -> bool:
    return not _VERBS.isdisjoint(tokens(text))
