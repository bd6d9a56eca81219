"""Does the policy look? Some questions are asked again with a wrong image and with noise, and their gains measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mbpo_core.config import EvaluationConfig
from mbpo_core.errors import DataError, UnusableImage
from mbpo_core.evaluation.judging import judge
from mbpo_core.evaluation.questions import choose_questions, probe_of
from mbpo_core.evaluation.vocabulary import split_words
from mbpo_core.records import CLOSED_KINDS, Blind
from mbpo_core.seeds import derive_seed
from mbpo_core.stage import Reader, Row

if TYPE_CHECKING:
    from mbpo_core.generation.generate import Generated
    from mbpo_core.models.groups import Prompt, PromptGroup
    from mbpo_core.models.policy import Policy


@dataclass(frozen=True)
class Balance:
    """The questions that are looked at more closely.

    Attributes:
        partners: their ids, each with the id of the question whose image it is also asked with; None where there is
            none.
        images: the images of the partners.
    """

    partners: dict[str, str | None] = field(default_factory=dict)
    images: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """A question's other prompts; None where it is not asked so."""

    shuffled: Prompt | None = None
    noised: Prompt | None = None


def choose_balance(questions: Reader, config: EvaluationConfig) -> Balance:
    """At most `config.balance` questions a probe, chosen as `choose_questions` does, and their partners' images."""
    if not config.balance:
        return Balance()
    columns = ["sample_id", "kind", "question", "answer", "meta"]
    chosen = choose_questions(questions.rows(columns=columns), config.balance)
    partners = choose_partners(row for row in questions.rows(columns=columns) if row["sample_id"] in chosen)
    wanted = questions.where("sample_id", sorted({partner for partner in partners.values() if partner}))
    images = {row["sample_id"]: row["images"] for row in wanted.rows(columns=["sample_id", "images"])}
    return Balance(partners, images)


def choose_partners(samples: Iterable[Row]) -> dict[str, str | None]:
    """For each closed question another one of its probe, whose answer differs; None where there is none.

    By a hash of the ids, so that neither order nor batches matter. Answers differ in the words that they add to their
    questions: "green" and "The banana is green." say the same of a banana.

    Args:
        samples: rows with sample_id, kind, question, answer and meta.

    Returns:
        Every sample's id, open questions with None.
    """
    found: dict[str, str | None] = {}
    probes: dict[str, list[tuple[int, str, frozenset[str]]]] = defaultdict(list)
    for sample in samples:
        sample_id = sample["sample_id"]
        found[sample_id] = None
        if sample["kind"] in CLOSED_KINDS:
            key = derive_seed(0, "evaluation", "partner", sample_id)
            probes[probe_of(sample)].append((key, sample_id, _told(sample)))
    for asked in probes.values():
        asked.sort(key=lambda item: item[:2])
        for index, (_, sample_id, told) in enumerate(asked):
            following = (*asked[index + 1 :], *asked[:index])
            found[sample_id] = next((other for _, other, theirs in following if theirs != told), None)
    return found


def prepare_look(policy: Policy, sample: Row, balance: Balance, config: EvaluationConfig) -> Look | None:
    """The other prompts of a question; None where it is not looked at. Runs no model.

    Raises:
        DataError: as `Policy.prepare`.
    """
    from mbpo_core.models.images import open_image
    from mbpo_core.models.noise import noised_picture

    if sample["sample_id"] not in balance.partners:
        return None
    if sample["kind"] not in CLOSED_KINDS:
        return Look()
    seeds = [
        derive_seed(0, "evaluation", "noise", sample["sample_id"], index) for index in range(len(sample["images"]))
    ]
    pictures = [
        noised_picture(policy.family, open_image(image), config.noise_step, seed)
        for image, seed in zip(sample["images"], seeds, strict=True)
    ]
    noised = policy.prepare(sample["question"], pictures)
    partner = balance.partners[sample["sample_id"]]
    try:
        others = [open_image(image) for image in balance.images[partner]] if partner else []
    except UnusableImage:  # the partner is dropped from the questions with its reason; this one goes without
        others = []
    return Look(policy.prepare(sample["question"], others) if others else None, noised)


def look(
    policy: Policy,
    samples: Sequence[Row],
    prompts: Sequence[Prompt],
    answers: Sequence[Generated],
    looks: Sequence[Look | None],
    config: EvaluationConfig,
) -> list[Row]:
    """What the looks of a batch give, as columns of its Prediction rows; null for questions that are not looked at.

    Args:
        policy: answers and scores.
        samples: the batch.
        prompts: their prompts.
        answers: what the policy said.
        looks: their other prompts.
        config: how answers are decoded and how the policy is blinded.
    """
    columns = [_not_looked_at() for _ in samples]
    for name in ("shuffled", "noised"):
        asked = [(index, prompt) for index, one in enumerate(looks) if one and (prompt := getattr(one, name))]
        for (index, _), said in zip(asked, greedy(policy, [prompt for _, prompt in asked], config), strict=True):
            columns[index] |= {f"{name}_text": said.text, f"{name}_verdict": judge(samples[index], said.text)[0]}
    measured = [index for index, one in enumerate(looks) if one]
    groups = [_group(policy, samples[index], prompts[index], answers[index].token_ids) for index in measured]
    fitting = [(index, group) for index, group in zip(measured, groups, strict=True) if group]
    gains = gains_of(policy, [group for _, group in fitting], config.blind)
    for (index, _), several in zip(fitting, gains, strict=True):
        columns[index] |= {"token_gains_gold": several[0], "token_gains_answer": several[-1]}
    return columns


def gains_of(policy: Policy, groups: Sequence[PromptGroup], blind: Blind) -> list[list[list[float]]]:
    """Gain of every token of every completion, nats: two packed passes, with the image and without.

    Source: recipe 1.3, equation (1), before the mean.
    """
    from mbpo_core.models.scoring import group_logprobs
    from mbpo_core.objectives.gain import token_gains

    if not groups:
        return []
    seeing, blinded = group_logprobs(policy, groups), group_logprobs(policy, groups, blind=blind)
    return [
        [token_gains(a.double(), b.double()).tolist() for a, b in zip(seen, unseen, strict=True)]
        for seen, unseen in zip(seeing, blinded, strict=True)
    ]


def _not_looked_at() -> Row:
    texts: Row = {f"{name}_{what}": None for name in ("shuffled", "noised") for what in ("text", "verdict")}
    return texts | {"token_gains_gold": [], "token_gains_answer": []}


def _group(policy: Policy, sample: Row, prompt: Prompt, answer: list[int]) -> PromptGroup | None:
    """The reference answer and the policy's own, once where they are equal; None where the first cannot be scored."""
    from mbpo_core.models.groups import PromptGroup

    try:
        gold = policy.encode_completion(sample["answer"])
    except DataError:  # it holds a special token of this model
        return None
    if len(prompt.token_ids) + len(gold) > policy.max_positions:
        return None
    return PromptGroup(prompt, [gold] if gold == answer else [gold, answer], sample_id=sample["sample_id"])


def greedy(
    policy: Policy, prompts: Sequence[Prompt], config: EvaluationConfig, blind: Blind | None = None
) -> list[Generated]:
    """The answers that evaluation is about."""
    from mbpo_core.generation.generate import generate

    generated = generate(policy, prompts, max_new_tokens=config.max_new_tokens, blind=blind)
    return [completions[0] for completions in generated]


def _told(sample: Row) -> frozenset[str]:
    answer, question = set(split_words(sample["answer"])), set(split_words(sample["question"]))
    return frozenset(answer - question or answer)
