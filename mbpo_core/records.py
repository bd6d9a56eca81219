"""The nouns: one record a kind of row that stages exchange. Read this file first.

Records are pydantic models; `mbpo_core.tables` derives the Arrow schema of each from its
fields, so that a column exists in one place only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["open", "yes_no", "multiple_choice", "numeric", "short_text", "counting", "box", "math"]
AnswerForm = Literal["sentence", "word", "letter", "number", "corners", "boxed", "free"]
Split = Literal["offline", "online", "dev", "eval"]
Blind = Literal["mask", "mean", "black", "drop"]
Verdict = Literal["correct", "wrong", "unparsed"]
Encoded = bytes  # an alias, because a field named `bytes` hides the builtin inside its class

CLOSED_KINDS: tuple[Kind, ...] = (
    "yes_no", "multiple_choice", "numeric", "short_text", "counting", "box", "math",
)  # fmt: skip


class Record(BaseModel):
    """A row; unknown columns are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(Record):
    """A picture as Hugging Face `datasets` stores it: encoded bytes, or a path, or both."""

    bytes: Encoded | None = Field(description="Encoded file (PNG, JPEG, ...).")
    path: str | None = Field(default=None, description="File name it came from; informational.")


class Part(Record):
    """One piece of a message's content."""

    type: Literal["image", "text"]
    text: str | None = None


class Message(Record):
    """One turn of a conversation in the form that chat templates and TRL read."""

    role: Literal["user", "assistant"]
    content: list[Part]


def watched(description: str) -> Any:
    """A column that came later and only watches: null in rows written before, in no identity and no content digest."""
    return Field(default=None, description=description, json_schema_extra={"volatile": True, "later": True})


def message_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """The text of a conversation's rows, its image parts left out."""
    return "".join(part["text"] or "" for message in messages for part in message["content"] if part["type"] == "text")


class Sample(Record):
    """A question about an image with its reference answer."""

    sample_id: str = Field(description="Unique and stable; seeds derive from it.")
    images: list[Image]
    question: str
    answer: str = Field(description="Reference answer in the declared form; becomes the chosen response.")
    kind: Kind
    answer_form: AnswerForm = Field(default="free", description="Form the question asks the answer to take.")
    choices: list[str] = Field(default_factory=list, description="Options of a multiple-choice question, A first.")
    split: Split
    source: str
    rejected: str | None = Field(default=None, description="A rejected response that the data brings along.")
    meta: str = Field(default="{}", description="JSON object; see docs/data.md for the keys evaluation reads.")


class Negative(Record):
    """A rejected response together with the image that provoked it."""

    sample_id: str
    images: list[Image] = Field(description="The clean images.")
    rejected_images: list[Image] = Field(description="Wrong images as saved (8-bit PNG); empty where none was made.")
    question: str
    question_kind: Kind
    answer_form: AnswerForm
    kind: str = Field(description="The generator that made it, a name of `mbpo methods`.")
    chosen: str
    rejected: str | None = Field(description="Null where only the image is dispreferred.")
    clean_answer: str = Field(description="What the model says to the clean image, greedily.")
    clean_correct: bool = Field(description="The clean answer agrees with the reference answer.")
    attacked_answer: str = Field(description="Greedy answer to the saved image, before filters.")
    blind_answer: str = Field(description="Greedy answer without the image.")
    flipped: bool = Field(description="clean_correct, and the greedy answer to the saved 8-bit image is not.")
    flipped_unrounded: bool = Field(description="The same before the image was rounded to 8 bits.")
    logprob_clean: float = Field(description="Mean log p(chosen) on the clean image, nats per token.")
    logprob_attacked: float = Field(description="The same after the attack, before rounding.")
    logprob_rounded: float = Field(description="The same on the saved 8-bit image.")
    epsilon: float = Field(description="Radius asked for, pixels in 0-1 (L-infinity) or L2 norm.")
    perturbation_linf: float = Field(description="Largest pixel change of the saved image, pixels in 0-1.")
    masks: list[Image] = Field(default_factory=list, description="Key regions of each clean image, white inside.")
    keywords: list[str] = Field(default_factory=list, description="Words of chosen that the regions belong to.")
    detector: str = Field(default="", description="What found the regions; global where nothing was found.")
    attack: str = Field(description="JSON: all that it takes to make the row again, seed included.")
    decode: str = Field(description="JSON: how the rejected response came about (greedy, which sample, given, made).")
    meta: str = Field(default="{}", description="The sample's meta.")


class PreferencePair(Record):
    """A chosen and a rejected response to the clean image; opens in `datasets` and TRL unchanged.

    Where only the image is dispreferred, `rejected` is empty and what is known of it null.
    """

    sample_id: str
    images: list[Image]
    rejected_images: list[Image]
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    question_kind: Kind
    negative_kind: str
    blind: Blind = Field(description="How the blind condition was made.")
    gain_chosen: float = Field(description="Image Information Gain of chosen, nats per token.")
    gain_rejected: float | None
    token_gains_chosen: list[float] = Field(description="Per token, nats.")
    token_gains_rejected: list[float]
    logprob_chosen: float = Field(description="Mean log p(chosen | image), nats per token.")
    logprob_rejected: float | None
    blind_logprob_chosen: float = Field(description="Mean log p(chosen | blind), nats per token.")
    blind_logprob_rejected: float | None
    meta: str = "{}"


class Completion(Record):
    """One sampled answer with everything training needs to know about it."""

    text: str
    token_ids: list[int]
    logprobs: list[float] = Field(description="Under the sampling distribution (temperature applied), nats.")
    finish_reason: Literal["stop", "length"]
    extracted: str | None = Field(description="Answer the verifier read out of the text.")
    verdict: Verdict
    reason: str = Field(description="Why the verifier decided so.")
    accuracy_reward: float
    format_reward: float
    length_reward: float = Field(default=0.0, description="What a long answer loses, <= 0 (rollouts.overlong_share).")
    reward: float = Field(description="The sum of the three.")


class RolloutGroup(Record):
    """The completions of one closed-ended prompt."""

    sample_id: str
    images: list[Image]
    prompt: list[Message]
    answer: str
    question_kind: Kind
    answer_form: AnswerForm
    choices: list[str]
    policy_digest: str
    round_index: int
    temperature: float
    verifier: str = Field(description="Name and version, e.g. yes_no@1.")
    zero_variance: bool = Field(description="All rewards equal: recorded, not trained on.")
    completions: list[Completion]
    meta: str = "{}"
    stand_in: int | None = watched(
        "0 for a drawn prompt, k for the k-th that stands in for one whose groups agreed; null where redraw is 0."
    )
    engine_gap: float | None = watched(
        "Mean difference between the engine's own log-probs and the policy's, nats per token; null where only one is "
        "known."
    )


class Prediction(Record):
    """One policy's answer to one held-out question."""

    policy: str = Field(description="Label in the table: base, sft, dpo, trained.")
    sample_id: str
    images: list[Image]
    question: str
    answer: str
    question_kind: Kind
    probe: str = Field(description="Evaluation set the question belongs to, e.g. prior_conflict.")
    text: str
    extracted: str | None
    verdict: Verdict
    blind_text: str | None = Field(description="Answer without the image; null for open questions.")
    blind_verdict: Verdict | None
    shuffled_text: str | None = Field(
        default=None, description="Answer with another question's image (evaluation.balance); null where not asked."
    )
    shuffled_verdict: Verdict | None = None
    noised_text: str | None = Field(default=None, description="Answer with noise on the image; null where not asked.")
    noised_verdict: Verdict | None = None
    token_gains_gold: list[float] = Field(
        default_factory=list, description="Gain of each token of the reference answer, nats; empty where not measured."
    )
    token_gains_answer: list[float] = Field(default_factory=list, description="The same of the policy's own answer.")
    meta: str = "{}"


class TrainingStep(Record):
    """One row of metrics.parquet: one optimizer step."""

    step: int = Field(description="Number of the optimizer step, from 1, over all rounds.")
    round_index: int = Field(description="Round of the pipeline, from 0.")
    learning_rate: float = Field(description="Of this step, after warm-up and schedule.")
    loss: float = Field(description="About 0 on policy by construction; watch the columns below instead.")
    offline_loss: float | None = Field(description="Share of the pairs in loss.")
    online_loss: float | None = Field(description="Share of the rollout groups in loss.")
    grad_norm: float = Field(description="Global gradient norm before clipping.")
    kl: float | None = Field(
        description="Mean k3 to the reference over trained tokens, nats; null where no reference was scored."
    )
    clip_fraction: float = Field(description="Share of tokens where the clipped branch was taken.")
    advantage_abs: float = Field(description="Mean |advantage| over trained completions.")
    reward: float | None = Field(description="Mean online reward of the step's groups.")
    groups_offline: int = Field(description="Pairs trained on.")
    groups_online: int = Field(description="Rollout groups trained on.")
    groups_zero_variance: int = Field(description="Online groups drawn and left out.")
    tokens: int = Field(description="Completion tokens trained on.")
    chosen_logprob: float | None = Field(description="Mean log p(chosen), nats per token.")
    rejected_logprob: float | None = Field(description="Mean log p(rejected), nats per token.")
    chosen_drift: float | None = Field(description="chosen_logprob minus the reference's, nats per token.")
    chosen_reward: float | None = Field(
        description="Implied reward of chosen: dpo_beta times log pi - log pi_ref, summed over its tokens."
    )
    rejected_reward: float | None = Field(description="Implied reward of rejected.")
    wrong_image_reward: float | None = Field(description="Implied reward of chosen under the rejected images.")
    positions: int = Field(description="Token positions run forward and backward, prompts and images included.")
    rollout_gap: float | None = watched(
        "Mean |log p - recorded| of the trained rollout tokens, nats: p is the policy as the round began where "
        "rollout_correction has it scored, else the policy now; null without rollouts."
    )
    rollout_gap_max: float | None = watched("The largest of them.")
    importance_weight: float | None = watched(
        "Mean of what rollout_correction multiplies rollout tokens by; null where it is off."
    )
    importance_capped: float | None = watched("Share of rollout tokens whose weight was capped.")
    stopped: bool = Field(description="The stop rule fired at this step.")
    seconds: float = Field(description="Wall time of the step.", json_schema_extra={"volatile": True})
    cpu_seconds: float = Field(
        description="Processor time of the step, over all processes.", json_schema_extra={"volatile": True}
    )


class Dropped(Record):
    """A row that was kept aside, with its reason."""

    sample_id: str
    stage: str
    reason: str = Field(description="From the stage's closed set.")
    detail: str
    row: str = Field(description="JSON of the source row without image bytes.")
