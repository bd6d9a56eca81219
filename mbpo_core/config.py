"""Settings of every stage: small frozen pydantic models, importable without torch.

A field marked by `knob` says how the work is done (batch size, device, part size), never what
comes out; it stays out of an artifact's identity. One marked by `addition` is identity only where it
differs from its default. Everything else is identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from mbpo_core.errors import ConfigError
from mbpo_core.methods import METHODS, NEGATIVES, OBJECTIVES, MethodEntry, ObjectiveEntry, objective_passes
from mbpo_core.records import Blind

Method = Literal[
    "mbpo", "mbpo_offline", "mbpo_region", "mbpo_counterfactual", "mbpo_remined", "mbpo_mopps", "mfpo",
    "mfpo_online", "image", "recoloured", "mbpo_recoloured", "sft_recoloured", "sft", "dpo", "dpo_own", "ipo",
    "mdpo", "chip", "adavip", "realign", "povid", "povid_text", "vdpo", "mpo", "vigil", "p2dpo", "mrpo", "clip_dpo",
    "rlaif_v", "rlhf_v", "mia_dpo", "self_augmented", "grpo", "dr_grpo", "dapo", "gspo", "sapo", "cispo", "papo",
]  # fmt: skip
"""The keys of `mbpo_core.methods.METHODS`, for type checkers and forms."""

DEFAULT_METHOD: Method = "sft_recoloured"
"""Of a config that names none: the best at equal compute where labels follow the prior (docs/results.md)."""

RUN_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def knob(default: Any, description: str, **bounds: Any) -> Any:
    """A field that says how work is done; it never enters an artifact's identity."""
    return Field(default, description=description, json_schema_extra={"execution": True}, **bounds)


def addition(default: Any, description: str, **bounds: Any) -> Any:
    """A field that came later: at its default nothing differs from what was before it, artifacts' identities included.

    A default that is made anew (a list) is given as its factory.
    """
    made = {"default_factory": default} if callable(default) else {"default": default}
    return Field(**made, description=description, json_schema_extra={"addition": True}, **bounds)


class Section(BaseModel):
    """Base of all settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        model_title_generator=lambda model: model.__name__.removesuffix("Config").lower(),  # forms show it
    )

    def identity(self) -> dict[str, Any]:
        """The fields that decide what comes out, as JSON values."""
        left_out = set()
        for name, field in type(self).model_fields.items():
            marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            default = field.get_default(call_default_factory=True, validated_data={})
            if marks.get("execution") or (marks.get("addition") and getattr(self, name) == default):
                left_out.add(name)
        return self.model_dump(mode="json", exclude=left_out)


class PolicyConfig(Section):
    """Which model is trained, and how it is run."""

    model: str = Field("demo:absolute", description="Local model folder, demo:absolute, demo:soft, or a hub name.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Type of weights and activations.")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="Attention implementation.")
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "Where the model runs; auto takes the accelerator if any.")
    group_packing: Literal["auto", "packed", "plain"] = knob(
        "auto", "Rows hold a prompt once with many completions (packed), one completion (plain), or what costs less."
    )
    logits_mib: float = knob(
        256.0, "Largest logits tensor, MiB; a larger one is made in chunks of the vocabulary.", gt=0
    )
    allow_download: bool = knob(False, "Let a hub name be downloaded; off, only local files are used.")


class SamplesConfig(Section):
    """Where questions come from and which column is which."""

    source: Literal["demo", "dataset", "parquet", "jsonl", "pope", "amber", "mmhal", "vilp", "vlind"] = Field(
        "demo", description="Kind of input; the last five are benchmarks as published (docs/benchmarks.md)."
    )
    path: str = Field(
        "", description="File or folder to read, or a dataset of the hub (owner/name); unused for the demo scenes."
    )
    name: str = Field("", description="Name written to the source column; the source kind if empty.")
    image_root: str = Field(
        "", description="Folder that relative image paths may not leave; the input's folder if empty."
    )
    id_column: str = Field("", description="Column of unique ids; ids are made from content if empty.")
    image_column: str = Field("image", description="Column of an image or a list: bytes, HF image, or path.")
    question_column: str = Field("question", description="Column of the question text.")
    answer_column: str = Field("answer", description="Column of the reference answer.")
    rejected_column: str = Field("", description="Column of rejected responses; none if empty.")
    json_column: str = addition("", "Column of JSON objects whose keys are read as columns too, as RLHF-V's text.")
    conversation_column: str = Field("", description="LLaVA conversations; replaces question and answer columns.")
    kind_column: str = Field("", description="Column of question kinds; kinds are inferred if empty.")
    choices_column: str = Field("", description="Column of multiple-choice options.")
    split_column: str = Field("", description="Column of splits; splits are dealt by image if empty.")
    answer_form: Literal["infer", "sentence", "word", "letter", "number", "corners", "boxed", "free"] = Field(
        "infer", description="Form answers take; inferred from kind and answer by default."
    )
    aliases_column: str = addition(
        "",
        "short_text: column of further right answers, a text or a list; the answer column itself takes those of all "
        "annotators. None if empty.",
    )
    tolerance: float = addition(
        0.0,
        "numeric: largest difference from the answer, relative to it, that is right; 0.05 as in ChartQA.",
        ge=0,
        lt=1,
    )
    box_scale: Literal["pixels", "unit", "thousand"] = addition(
        "pixels", "box: coordinates of answers are pixels, shares of the sides (0 to 1), or thousandths (0 to 1000)."
    )
    box_iou: float = addition(0.5, "box: least intersection over union with the answer that is right.", gt=0, le=1)
    offline_share: float = Field(0.5, ge=0, le=1, description="Share of images dealt to the offline split.")
    online_share: float = Field(0.3, ge=0, le=1, description="Share of images dealt to the online split.")
    dev_share: float = Field(0.1, ge=0, le=1, description="Share of images dealt to dev; the rest is eval.")
    limit: int = Field(0, ge=0, description="Read at most this many rows; 0 reads all.")
    max_pixels: int = Field(16_777_216, ge=1, description="Largest accepted image, width times height.")
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    demo_setting: Literal["uniform", "natural"] = Field(
        "uniform", description="Demo: colours uniform (answers contradict the prior) or as in nature."
    )
    demo_conflict_share: float = Field(
        0.03, ge=0, le=1, description="Demo, natural: share of off-colour prior objects."
    )
    demo_offline: int = Field(400, ge=0, description="Demo: offline questions.")
    demo_online: int = Field(400, ge=0, description="Demo: online questions.")
    demo_dev: int = Field(200, ge=0, description="Demo: questions a dev probe.")
    demo_eval: int = Field(1000, ge=0, description="Demo: questions an eval probe.")
    part_rows: int = knob(1000, "Rows a Parquet part.", ge=1)
    url_folder: str = addition(
        "", "Folder that pictures named by URL are fetched into and read from; URLs are refused if empty."
    )
    url_hosts: list[str] = addition(
        list, "Hosts that may be fetched from at a private address and by plain http; others by https only."
    )
    url_max_bytes: int = addition(33_554_432, "Largest fetched file, bytes.", ge=1)
    url_timeout_s: float = knob(30.0, "Longest time a picture may take to be fetched, seconds.", gt=0)
    allow_download: bool = knob(False, "Let a dataset of the hub be downloaded; off, only local files are used.")

    @model_validator(mode="after")
    def _shares_fit(self) -> SamplesConfig:
        if self.offline_share + self.online_share + self.dev_share > 1 + 1e-9:
            raise ValueError("offline_share + online_share + dev_share must be <= 1; eval gets the rest")
        if self.source != "demo" and not self.path:
            raise ValueError(f"path is empty; source {self.source} needs a file or folder")
        return self


class NegativesConfig(Section):
    """How rejected images and responses are made (recipes 1.4, 2.3-2.4 and 3)."""

    method: Literal[
        "adversarial", "noise", "diffusion", "blank", "key_region", "masked", "crop", "retrieved", "counterfactual",
        "given", "own", "dropped_image", "corrupted", "ranked", "collage", "segment",
    ] = Field("adversarial", description="Generator; `mbpo methods` says what each does.")  # fmt: skip
    responses: Literal["decoded", "none"] = Field(
        "decoded", description="Rejected responses are what the model says; none: only the image is dispreferred."
    )
    target: Literal["untargeted", "targeted"] = Field(
        "untargeted", description="Lower log p(chosen), or raise the blind model's answer."
    )
    norm: Literal["linf", "l2"] = Field("linf", description="Ball the perturbation stays in.")
    epsilon: float = Field(
        8 / 255, ge=0, le=64, description="Radius: pixels in 0-1 for linf (at most 1), L2 norm for l2."
    )
    step_size: float = Field(2 / 255, ge=0, le=64, description="Stride of one step, in the units of epsilon.")
    steps: int = Field(10, ge=0, le=10_000, description="Gradient steps.")
    random_start: bool = Field(True, description="Start at a random point of the ball, on the 1/255 grid.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Weight of past gradients (L1-normalised); 0 is plain PGD.")
    stop_logprob: float = Field(
        0.0, le=0, description="Stop a sample once mean log p(chosen) is at or below this, nats/token; 0 never stops."
    )
    stop_on_flip: bool = Field(
        False,
        description="Stop a sample that was answered rightly once its 8-bit iterate is not; off, it takes all steps.",
    )
    attack_region: bool = Field(False, description="adversarial: change nothing outside the key region.")
    diffusion_step: int = Field(500, ge=0, le=999, description="Noise step of the VCD schedule, on normalised pixels.")
    detector: Literal["saliency", "boxes", "grounded"] = Field(
        "saliency",
        description="Finds key regions: the policy's own gradient, boxes in the sample's meta, or a grounding model.",
    )
    region_share: float = Field(0.15, gt=0, le=1, description="saliency: share of the image that a key region takes.")
    keywords: int = Field(3, ge=1, le=100, description="Most keywords of an answer, K.")
    position_power: float = Field(1.0, ge=0, description="phi: fall of a word's influence with distance in words.")
    similarity_weight: float = Field(1.0, ge=0, description="gamma: weight of word similarity.")
    position_decay: float = Field(0.01, ge=0, description="lambda: fall of a word's weight with its place, per word.")
    word_vectors: str = Field(
        "", description="Text file of word vectors (word2vec or GloVe form); the policy's input embeddings if empty."
    )
    grounding_model: str = Field("", description="grounded: local GroundingDINO folder.")
    segmentation_model: str = Field("", description="grounded: local SAM or SAM 2 folder; boxes alone if empty.")
    grounding_threshold: float = Field(0.3, ge=0, le=1, description="grounded: least confidence of a box.")
    crop_min: float = Field(0.01, gt=0, le=1, description="crop: least share of the area.")
    crop_max: float = Field(0.2, gt=0, le=1, description="crop: greatest share of the area.")
    counterfactual: Literal["question", "embedding", "recolour"] = Field(
        "question",
        description="Where the other image comes from first: same question, other answer; nearest image with another "
        "answer; key region recoloured, where the answer tells a colour. The others follow where it finds nothing.",
    )
    swapped: float = Field(
        0.5,
        ge=0,
        le=1,
        description="counterfactual: share of the recoloured images that become the clean one, with the answer that is "
        "right of them; the sample's own image is then the rejected one.",
    )
    descriptions: bool = Field(
        True,
        description="counterfactual recolour: of an answer that tells several colours, paint the thing that one of "
        "them stands with; off, such answers count as telling none.",
    )
    corrupted_words: int = Field(1, ge=1, le=100, description="corrupted: words swapped.")
    candidates: int = Field(10, ge=2, le=256, description="ranked: answers sampled.")
    scorer: Literal["claims", "clip", "gain"] = Field("claims", description="ranked: what orders the answers.")
    clip_model: str = Field("", description="ranked by clip: local CLIP folder.")
    min_score_gap: float = Field(
        1.0,
        ge=0,
        description="ranked: least distance of worst and best: wrong claims, cosine (0.02 is much), nats/token.",
    )
    layout: Literal["sequence", "grid", "picture_in_picture"] = Field("sequence", description="collage: arrangement.")
    collage_images: int = Field(2, ge=2, le=9, description="collage: images, the sample's own among them.")
    segment_tokens: int = Field(256, ge=1, description="segment: longest stretch that is written anew, tokens.")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="Longest rejected response, tokens.")
    extra_samples: int = Field(4, ge=0, le=64, description="Samples drawn after the greedy answer fails a filter.")
    temperature: float = Field(1.0, gt=0, le=10, description="Temperature of the extra samples.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus of the extra samples.")
    min_distinct: float = Field(0.6, ge=0, le=1, description="Least share of distinct 3-grams.")
    min_length_ratio: float = Field(0.5, ge=0, description="Least rejected/chosen length in tokens.")
    max_length_ratio: float = Field(2.0, gt=0, description="Greatest rejected/chosen length in tokens.")
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(32, "Samples attacked together; four times as many are read and sorted by length.", ge=1)
    part_rows: int = knob(128, "Rows a Parquet part (rounded up to multiples of four times batch_size).", ge=1)

    @field_validator("epsilon")
    @classmethod
    def _radius_fits(cls, epsilon: float, info: ValidationInfo) -> float:
        if info.data.get("norm") == "linf" and epsilon > 1:
            raise ValueError("must be in [0, 1] for linf (pixels in 0-1; write 8/255 as 0.0314)")
        return epsilon

    @model_validator(mode="after")
    def _settings_fit(self) -> NegativesConfig:
        if self.min_length_ratio > self.max_length_ratio:
            raise ValueError("min_length_ratio must be <= max_length_ratio")
        if self.crop_min > self.crop_max:
            raise ValueError("crop_min must be <= crop_max")
        if self.detector == "grounded" and not self.grounding_model and "detector" in self.read():
            raise ValueError("detector grounded needs grounding_model, a local folder")
        if self.method == "ranked" and self.scorer == "clip" and not self.clip_model:
            raise ValueError("scorer clip needs clip_model, a local folder")
        return self

    def read(self) -> dict[str, Any]:
        """The settings that this generator reads, beyond those that all do."""
        names = NEGATIVES[self.method].settings
        return {name: getattr(self, name) for name in names}

    def identity(self) -> dict[str, Any]:
        """Settings that only other generators read decide nothing."""
        others = {name for entry in NEGATIVES.values() for name in entry.settings} - set(self.read())
        return {name: value for name, value in super().identity().items() if name not in others}


class ImagesConfig(NegativesConfig):
    """Rejected images made for the pairs, where the objective looks at them; the fields of section negatives."""

    method: Literal[
        "adversarial", "noise", "diffusion", "blank", "key_region", "masked", "crop", "retrieved", "counterfactual",
    ] = Field("key_region", description="Generator of images; `mbpo methods` says what each does.")  # fmt: skip
    responses: Literal["decoded", "none"] = Field(
        "none", description="What a pair without a rejected response gets; the others keep theirs."
    )
    swapped: float = Field(0.0, ge=0, le=0, description="Always 0: a pair's clean image stays what it is.")


class PairsConfig(Section):
    """Which negatives become preference pairs (recipe 1.3 and filters 4-5 of 1.4)."""

    blind: Blind = Field("mask", description="How the model is blinded; mask hides image positions from the text.")
    select: Literal["top", "bottom", "random", "all"] = Field(
        "top", description="Which pairs are kept within each question kind, by gain of the chosen response."
    )
    share: float = Field(0.5, gt=0, le=1, description="Share kept within each question kind.")
    min_gain: float = Field(0.0, ge=0, description="Gain of the chosen response must exceed this, nats/token.")
    gain_margin: float = Field(0.1, description="Chosen gain minus rejected gain must exceed this, nats/token.")
    blind_slack: float = Field(
        0.5, ge=0, description="Blind log p(rejected) may lie at most this far below blind log p(chosen), nats/token."
    )
    min_rejected_logprob: float = Field(
        -3.0, le=0, description="Least mean log p(rejected | clean image), nats/token: a hard negative is plausible."
    )
    text_leaning: bool = Field(True, description="Apply gain_margin and blind_slack: the negative must lean on text.")
    plausible: bool = Field(True, description="Apply min_rejected_logprob.")
    informative: bool = addition(True, "Apply min_gain: the image must make the chosen response likelier.")
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(32, "Pairs scored together.", ge=1)
    part_rows: int = knob(256, "Rows a Parquet part (rounded up to whole batches).", ge=1)


class RolloutsConfig(Section):
    """How closed-ended questions are sampled and rewarded (recipe 1.5)."""

    prompts: int = Field(200, ge=1, description="Prompts a round.")
    select: Literal["shuffle", "mopps"] = Field(
        "shuffle",
        description="Draw prompts without replacement over rounds, or those that the policy is expected to get right "
        "half the time (MoPPS).",
    )
    mopps_pool: int = Field(8, ge=1, le=1000, description="mopps: candidates that a prompt is picked from.")
    mopps_decay: float = Field(0.5, ge=0, le=1, description="mopps: what is kept of earlier counts; 1 forgets nothing.")
    group_size: int = Field(8, ge=2, le=256, description="Completions a prompt, G.")
    temperature: float = Field(
        1.0, gt=0, le=10, description="Sampling temperature; log-probs are of this distribution."
    )
    max_new_tokens: int = Field(24, ge=1, le=4096, description="Longest completion, tokens.")
    accuracy_reward: float = Field(1.0, gt=0, description="Reward of a right answer.")
    format_reward: float = Field(0.2, ge=0, description="Reward of an answer in the asked form; below accuracy_reward.")
    overlong_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Last share of max_new_tokens over which an answer loses up to accuracy_reward for its length "
        "(DAPO); 0 takes nothing away.",
    )
    engine: Literal["transformers", "vllm", "endpoint"] = addition(
        "transformers",
        "What samples: the policy in this process, vLLM with the same weights, or a server that speaks OpenAI's "
        "protocol, whose answers are scored by the policy.",
    )
    redraw: int = addition(
        0,
        "Prompts that may stand in for one whose completions all earn the same, one after the other, until one's do "
        "not (DAPO's dynamic sampling); at most this many times prompts are asked besides. 0 asks none.",
        ge=0,
        le=16,
    )
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(16, "Prompts sampled together.", ge=1)
    part_rows: int = knob(128, "Prompts a Parquet part (rounded up to whole batches).", ge=1)
    vllm_memory: float = knob(0.85, "vllm: share of an accelerator's memory that the engine takes.", gt=0, le=1)
    vllm_images: int = knob(1, "vllm: most images a prompt has; memory is set aside for as many.", ge=1, le=64)
    endpoint_url: str = knob(
        "", "endpoint: address of the server, such as http://127.0.0.1:8000/v1; elsewhere only as MBPO_ENDPOINTS says."
    )
    endpoint_model: str = knob("", "endpoint: name of the model there; empty takes the only one it lists.")
    endpoint_parallel: int = knob(8, "endpoint: requests under way at once.", ge=1, le=256)
    endpoint_timeout_s: float = knob(120.0, "endpoint: longest wait for an answer, seconds.", gt=0)
    endpoint_retries: int = knob(4, "endpoint: further tries, ever later, when it is busy or gone.", ge=0, le=20)

    @model_validator(mode="after")
    def _truth_outweighs_form(self) -> RolloutsConfig:
        if self.format_reward >= self.accuracy_reward:
            raise ValueError("format_reward must be below accuracy_reward, so that form never outweighs truth")
        return self

    def identity(self) -> dict[str, Any]:
        """Settings of MoPPS decide nothing where prompts are not picked by it."""
        mine = super().identity()
        return {name: value for name, value in mine.items() if self.select == "mopps" or not name.startswith("mopps_")}


class TrainingConfig(Section):
    """GRPO on pairs and rollouts together, or another objective on the pairs (recipes 1.6-1.8, 2.5-2.6, 3, 4)."""

    objective: Literal[
        "grpo", "none", "sft", "dpo", "ipo", "image", "mdpo", "mfpo", "chip", "adavip", "rdpo", "povid", "vdpo", "mpo",
        "vigil", "p2dpo", "mrpo",
    ] = Field("grpo", description="Loss on pairs (`mbpo methods`); none leaves them out.")  # fmt: skip
    use_online: bool = Field(True, description="Train on verified rollout groups.")
    surrogate: Literal["token", "sequence", "soft", "cispo"] = Field(
        "token", description="Group objective: clip a token's ratio (GRPO), the sequence's (GSPO), softly, or CISPO."
    )
    offline_ratio: Literal["on_policy", "reference", "shaped"] = Field(
        "on_policy", description="grpo: denominator of a pair's ratio, recipe 1.6 modes (a), (b), (c)."
    )
    learning_rate: float = Field(1e-6, gt=0, le=1, description="Peak learning rate of AdamW.")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="Shape after warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up, optimizer steps.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Global gradient norm is clipped to this.")
    pairs_per_step: int = Field(8, ge=1, description="Offline groups a step, over all processes.")
    groups_per_step: int = Field(8, ge=1, description="Online groups a step, over all processes.")
    epochs: int = Field(1, ge=1, le=1000, description="Passes over a round's pairs and groups.")
    token_budget: int = Field(
        0,
        ge=0,
        description="Token positions to run forward and backward over all rounds, prompts and images included; as many "
        "epochs as it takes. 0 leaves it to epochs.",
    )
    curriculum: Literal["none", "token_entropy", "semantic_entropy"] = Field(
        "none",
        description="Pairs in three stages, easy to hard, by the reference's entropy: mean over the tokens of chosen, "
        "or over the meanings of eight sampled answers.",
    )
    inner_steps: int = Field(1, ge=1, le=64, description="Updates on each batch before the next, mu in the recipe.")
    clip_low: float = Field(0.2, ge=0, lt=1, description="Ratio clip below: 1 - clip_low.")
    clip_high: float = Field(0.2, ge=0, description="Ratio clip above: 1 + clip_high.")
    beta: float = Field(0.04, ge=0, description="Weight of the k3 KL to the reference (groups).")
    max_drop: float = Field(
        2.0,
        ge=0,
        description="A token with negative advantage is pushed no further once this far below the reference, "
        "nats; 0 sets no bound (recipe 1.6 as written).",
    )
    offline_weight: float = Field(1.0, ge=0, description="Weight of a pair against an online group.")
    reward_chosen: float = Field(2.0, description="grpo: reward of the chosen response.")
    reward_rejected: float = Field(0.0, description="grpo: reward of the rejected response.")
    advantage_scale: Literal["population", "sample", "none"] = Field(
        "population", description="Advantages are divided by the group's population std, sample std, or nothing."
    )
    normalization: Literal["sequence", "token", "constant"] = Field(
        "sequence",
        description="Mean over a completion's tokens (grpo), over all tokens (dapo), or by max length (dr_grpo).",
    )
    constant_length: int = Field(64, ge=1, description="Divisor of the constant normalisation, tokens.")
    dpo_beta: float = Field(0.1, gt=0, description="Temperature of the implied reward, DPO and its kin.")
    add_image: float = Field(0.0, ge=0, description="Weight of an added image-side term (chosen: clean over rejected).")
    add_anchor: float = Field(0.0, ge=0, description="Weight of an added anchor (chosen over the reference's).")
    add_likelihood: float = Field(0.0, ge=0, description="Weight of an added likelihood term (chosen, nats/token).")
    image_cap: float = Field(
        0.0, ge=0, description="Image-side margin, nats, beyond which a pair is left alone; 0 sets no bound."
    )
    text_weight: float = Field(1.0, ge=0, description="mfpo: weight of the text loss.")
    image_weight: float = Field(1.0, ge=0, description="mfpo, image: weight of the image loss.")
    margin_weight: float = Field(1.0, ge=0, description="mfpo, image: weight of the margin loss (anchor).")
    margin: float = Field(0.0, description="mfpo (eta), mdpo (delta), image and anchor: reward margin of chosen.")
    segment_weight: float = Field(4.0, gt=0, description="chip: weight of tokens that the two responses do not share.")
    chip_kl: float = Field(0.1, ge=0, description="chip: weight of the KL term.")
    guidance: float = Field(0.5, description="vdpo: g; 1 is DPO, and 0 leaves no gradient.")
    blind: Blind = Field("mask", description="vdpo, vigil: how the model is blinded.")
    preference_weight: float = Field(0.8, ge=0, description="mpo: weight of DPO.")
    quality_weight: float = Field(0.2, ge=0, description="mpo: weight of BCO.")
    generation_weight: float = Field(1.0, ge=0, description="mpo: weight of the likelihood of chosen.")
    vigil_weight: float = Field(0.5, ge=0, description="vigil: weight of the counterfactual term.")
    vigil_beta: float = Field(0.1, gt=0, description="vigil: its temperature, per nat/token.")
    calibration_weight: float = Field(0.3, ge=0, description="p2dpo: weight of the calibration term.")
    second_reference: str = knob("", "mrpo: local folder of the second reference; its digest is identity.")
    reference_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="mrpo: a, the second reference's share of the harmonic mean; 0 adapts it to each pair.",
    )
    reference_clip: float = Field(0.1, ge=0, description="mrpo: how far the first may lie from the second, relative.")
    perception_weight: float = Field(0.0, ge=0, description="Weight of PAPO's KL to what patches hide (online).")
    perception_share: float = Field(0.6, gt=0, le=1, description="PAPO: chance that a patch is blacked out.")
    perception_cap: float = Field(
        0.2, ge=0, description="PAPO: nats a token beyond which it is left alone; 0: no bound."
    )
    perception_patch: int = Field(14, ge=1, description="PAPO: side of a patch, pixels.")
    freeze: Literal["none", "vision", "vision_and_projector", "language"] = Field(
        "vision", description="Parts whose weights stay bit-equal."
    )
    interpolation: float = addition(
        1.0,
        "How far the weights that the last round publishes lie from the base's towards the trained ones; below 1 keeps "
        "more of what the base can (WiSE-FT).",
        gt=0,
        le=1,
    )
    rollout_correction: float = addition(
        0.0,
        "Cap of the importance weight of a rollout token, trainer over engine, that multiplies its surrogate; 0 trusts "
        "the recorded log-probs. 2 for rollouts of another engine than transformers.",
        ge=0,
        le=100,
    )
    stop_rule: bool = Field(True, description="End early when log p(chosen) falls below the reference by stop_drop.")
    stop_drop: float = Field(0.1, gt=0, description="Allowed fall of mean log p(chosen), nats/token.")
    stop_window: int = Field(5, ge=1, description="Steps the fall is averaged over.")
    checkpoint_every: int = Field(20, ge=1, description="Steps between resumable checkpoints; also the stop rule's.")
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="DeepSpeed ZeRO stage: what the processes share out; 3 shares out the weights too."
    )
    offload: Literal["none", "optimizer", "all"] = knob(
        "none",
        "Keep in the host's memory: AdamW's state and the float32 weights (optimizer; from zero_stage 1), or the "
        "weights that compute too (all; zero_stage 3).",
    )
    gradient_checkpointing: bool = knob(
        False, "Keep only each layer's input and make the rest anew in the backward pass: less memory, more time."
    )
    lora_rank: int = addition(
        0, "Rank of the adapters (LoRA) that are trained in place of the weights; 0 trains the weights.", ge=0, le=1024
    )
    lora_alpha: float = addition(32.0, "An adapter's product is multiplied by lora_alpha / lora_rank.", gt=0)
    lora_targets: list[str] = addition(
        list, "Linear layers of the language model with an adapter, by last name (q_proj, v_proj); empty takes all."
    )
    micro_groups: int = knob(4, "Groups a forward pass, a process.", ge=1)
    tensorboard: str = knob(
        "", "Folder for TensorBoard event files, in the working folder or the one MBPO_MONITORS names; empty: none."
    )
    wandb: str = knob("", "Folder for Weights & Biases files, in the same place; empty: none.")
    wandb_project: str = knob("mbpo", "Weights & Biases project.", min_length=1, max_length=128)
    wandb_mode: Literal["offline", "online"] = knob(
        "offline", "offline: only write files, for wandb sync; online: send them too, by the login of the environment."
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> TrainingConfig:
        if self.objective == "none" and not self.use_online:
            raise ValueError("objective is none and use_online is off; nothing is left to train on")
        if self.objective == "mrpo" and not self.second_reference:
            raise ValueError("objective mrpo needs second_reference, a local model folder")
        return self

    @model_validator(mode="after")
    def _offload_fits(self) -> TrainingConfig:
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(f"offload {self.offload} needs zero_stage {least} or more, and it is {self.zero_stage}")
        return self

    @property
    def pair_passes(self) -> ObjectiveEntry | None:
        """What the loss on pairs looks at; None where pairs are left out."""
        return objective_passes(self.objective, image_term=self.add_image > 0)

    @property
    def wants_rejected_images(self) -> bool:
        """Whether the loss looks at the rejected images of a pair."""
        return self.pair_passes is not None and "rejected image" in self.pair_passes.needs

    def identity(self) -> dict[str, Any]:
        """Settings that only other objectives read decide nothing."""
        mine = OBJECTIVES[self.objective].settings if self.objective != "none" else ()
        others = {name for entry in OBJECTIVES.values() for name in entry.settings} - set(mine)
        if self.add_image or self.add_anchor:
            others -= {"margin", "image_cap"}
        others |= {"freeze"} if self.lora_rank else {"lora_alpha", "lora_targets"}
        return {name: value for name, value in super().identity().items() if name not in others}


class EvaluationConfig(Section):
    """Which held-out questions are asked and how rates are reported (recipe 5)."""

    split: Literal["eval", "dev"] = Field("eval", description="Held-out split; defaults are tuned on dev only.")
    probes: list[str] = addition(list, "Probes asked (of meta, else the question kinds); empty asks all.")
    per_probe: int = Field(0, ge=0, description="Questions asked a probe; 0 asks all.")
    blind: Blind = Field("mask", description="How the model is blinded for the blind gap.")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="Longest answer, tokens.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of all intervals.")
    bootstrap: int = Field(2000, ge=100, description="Resamples of the paired bootstrap.")
    clusters: list[Literal["object", "scene"]] = Field(
        ["object", "scene"],
        description="What questions are clustered by in the bootstrap: the object asked about, the picture.",
    )
    balance: int = Field(
        200,
        ge=0,
        description="Questions a probe that are also asked with another question's image and with noise, and whose "
        "Image Information Gain is measured; 0 for none.",
    )
    noise_step: int = Field(500, ge=0, le=999, description="Step of that noise in the VCD schedule.")
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(64, "Questions answered together.", ge=1)
    part_rows: int = knob(1024, "Rows a Parquet part (rounded up to whole batches).", ge=1)


class ReportConfig(Section):
    """What the HTML page shows."""

    title: str = Field("MBPO", max_length=200, description="Heading of the page.")
    pairs: int = Field(
        60, ge=0, le=500, description="Mined pairs, and images made for pairs, that are shown at most (page < 10 MB)."
    )
    rollouts: int = Field(16, ge=0, le=500, description="Rollout groups shown at most.")
    predictions: int = Field(48, ge=0, le=500, description="Changed predictions shown at most.")


class LaunchConfig(Section):
    """Where stages that need a model run. Machines and devices belong to the worker's environment, not here."""

    launcher: Literal["auto", "inline", "workers"] = knob(
        "auto",
        "inline: in the flow's own process; workers: in processes of their own; auto: workers where there is an "
        "accelerator or more than one process.",
    )
    processes: int = knob(1, "Worker processes, one an accelerator, over all machines.", ge=1, le=1024)
    timeout_s: int = knob(86_400, "Kill a stage's workers after this long, seconds.", ge=1)
    device_wait_s: int = knob(86_400, "Wait this long for an accelerator that another run holds, seconds.", ge=0)
    free_memory: float = knob(0.9, "Least share of an accelerator's memory to be free before launch.", ge=0, le=1)


class PromotionConfig(Section):
    """When a run's new checkpoint takes the place of the promoted one."""

    metrics: list[str] = Field(
        default_factory=list,
        description="Metrics of the evaluation in which a new checkpoint must not be significantly worse than the "
        "promoted one; empty promotes nothing.",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals that decide.")


class PipelineConfig(Section):
    """One run of the whole method."""

    run: str = Field("default", pattern=RUN_NAME, description="Name under which the run's artifacts are found.")
    method: Method = Field(
        DEFAULT_METHOD, description="Settings that stand in for the defaults below (`mbpo methods`); mbpo has none."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Every random number of the run derives from it.")
    rounds: int = Field(
        2, ge=1, le=100, description="Rollouts and training alternate this often; once where nothing is made anew."
    )
    remine: bool = Field(False, description="Mine each round's share of the pairs with the policy it starts from.")
    mined_images: bool = Field(
        False, description="Image-side objectives look at the images that mining made, not at those of section images."
    )
    baselines: list[Literal["sft", "dpo"]] = Field(
        default_factory=list, description="Also trained on the same pairs, for comparison."
    )
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    samples: SamplesConfig = Field(default_factory=SamplesConfig)
    negatives: NegativesConfig = Field(default_factory=NegativesConfig)
    images: ImagesConfig = Field(default_factory=ImagesConfig)
    pairs: PairsConfig = Field(default_factory=PairsConfig)
    rollouts: RolloutsConfig = Field(default_factory=RolloutsConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    promotion: PromotionConfig = Field(default_factory=PromotionConfig)
    launch: LaunchConfig = Field(default_factory=LaunchConfig)

    @model_validator(mode="before")
    @classmethod
    def _of_method(cls, data: Any) -> Any:
        """Put the method's settings under what the config says itself; a method is no baseline of its own."""
        if not isinstance(data, dict) or not _known(data.get("method", DEFAULT_METHOD)):
            return data  # refused later, by name
        plain = {k: v.model_dump(exclude_unset=True) if isinstance(v, Section) else v for k, v in data.items()}
        method = str(plain.get("method", DEFAULT_METHOD))
        if isinstance(plain.get("baselines"), list):
            plain["baselines"] = [name for name in plain["baselines"] if name != method]
        return overlaid(METHODS[method].settings, plain)

    @model_validator(mode="after")
    def _baselines_have_pairs(self) -> PipelineConfig:
        if self.baselines and self.remine:
            raise ValueError("baselines train on pairs that were mined once; switch remine off, or leave them out")
        return self

    @model_validator(mode="after")
    def _pairs_have_what_the_loss_looks_at(self) -> PipelineConfig:
        entry, made = self.training.pair_passes, self.negatives.method
        needs = entry.needs if entry else ""
        if "rejected image" in needs and self.mined_images and made not in _IMAGE_GENERATORS:
            raise ValueError(
                f"training.objective {self.training.objective} looks at rejected images, and with mined_images those "
                f"come from negatives.method {made}, which makes none; switch mined_images off"
            )
        if "rejected response" in needs and self.negatives.responses == "none" and made != "given":
            raise ValueError(
                f"training.objective {self.training.objective} looks at rejected responses, and negatives.responses is "
                "none; set it to decoded, or choose objective image or sft"
            )
        if "dpo" in self.baselines and self.negatives.responses == "none" and made != "given":
            raise ValueError(
                "baseline dpo looks at rejected responses, and negatives.responses is none; set it to decoded, or "
                "leave dpo out of baselines"
            )
        return self

    @property
    def label(self) -> str:
        """What the trained policy is called in tables."""
        return "trained" if self.method == "mbpo" else self.method

    @property
    def wants_pairs(self) -> bool:
        """Whether anything is trained on pairs."""
        return self.training.objective != "none" or bool(self.baselines)

    @property
    def training_rounds(self) -> int:
        """Rounds that are trained: one where neither rollouts nor pairs are made anew."""
        return self.rounds if self.training.use_online or self.remine else 1

    @property
    def makes_images(self) -> bool:
        """Whether rejected images are made for the pairs."""
        return self.training.wants_rejected_images and not self.mined_images


def load_config(path: str | Path, overrides: list[str] | None = None) -> PipelineConfig:
    """Read a run config and apply `section.field=value` overrides.

    Raises:
        ConfigError: the file is missing or not YAML, or a field is unknown or out of bounds;
            every wrong field is named with its value and bound.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(
            f"cannot read the run config: {error.strerror}", where=str(path), remedy="Give the path of a YAML file."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=str(path), remedy="Mend the file.") from error
    return build_config(data, overrides or [], where=str(path))


def build_config(data: dict[str, Any], overrides: list[str], *, where: str) -> PipelineConfig:
    """Validate nested settings after applying `section.field=value` overrides; see `load_config`.

    An override of `method` drops every value that the method before gives by itself: what is left of it is what the
    config says on its own, and that, like the other overrides, comes before what the new method gives.
    """
    if not isinstance(data, dict):
        raise ConfigError("the run config is not a mapping", where=where, remedy="See deployments/demo.yaml.")
    before = data.get("method", DEFAULT_METHOD)
    changed = _overridden(data, overrides)
    if changed.get("method", DEFAULT_METHOD) != before and _known(before):
        changed = _overridden(_without(_effective(METHODS[before]), data), overrides)
    try:
        return PipelineConfig.model_validate(changed)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(map(_prose, error.errors())), where=where, remedy="docs/configuration.md lists every field."
        ) from error


def overlaid(settings: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, and over them what the data says."""
    merged = {**settings, **data}
    for name, value in settings.items():
        if isinstance(value, Mapping) and isinstance(data.get(name), Mapping):
            merged[name] = {**value, **data[name]}
    return merged


def _effective(entry: MethodEntry) -> dict[str, Any]:
    """Every value that a method gives by itself: its settings, and plain defaults where it has none."""
    return overlaid(PipelineConfig(method="mbpo").model_dump(mode="json"), entry.settings)


def _known(method: Any) -> bool:
    return isinstance(method, str) and method in METHODS


def _without(settings: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data without the values that the settings give already."""
    left = {name: value for name, value in data.items() if name not in settings or value != settings[name]}
    for name, value in settings.items():
        if isinstance(value, Mapping) and isinstance(left.get(name), Mapping):
            left[name] = _without(value, left[name])
    return left


def _prose(error: ErrorDetails) -> str:
    """One wrong field in words; a rule over several fields has already named the values it is about."""
    place = ".".join(map(str, error["loc"])) or "config"
    got = "" if isinstance(error["input"], dict) else f", got {error['input']!r:.80}"
    return f"{place}: {error['msg']}{got}"


def _overridden(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of the data with all overrides applied."""
    changed = deepcopy(data)
    for override in overrides:
        _apply_override(changed, override)
    return changed


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"override {override!r} is not section.field=value", remedy="Write --set training.beta=0.02.")
    *parents, leaf = path.strip().split(".")
    for parent in parents:
        child = data.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r} goes below {parent}, which is a value", remedy="Check the path.")
        data = child
    data[leaf] = yaml.safe_load(value)


_IMAGE_GENERATORS: tuple[str, ...] = get_args(ImagesConfig.model_fields["method"].annotation)
BASELINES: tuple[str, ...] = get_args(get_args(PipelineConfig.model_fields["baselines"].annotation)[0])
