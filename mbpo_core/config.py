"""Settings of every stage: small frozen pydantic models, importable without torch.

A field marked by `knob` says how the work is done (batch size, device, part size), never what
comes out; it stays out of an artifact's identity. Everything else is identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from mbpo_core.errors import ConfigError
from mbpo_core.records import Blind

RUN_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def knob(default: Any, description: str, **bounds: Any) -> Any:
    """A field that says how work is done; it never enters an artifact's identity."""
    return Field(default, description=description, json_schema_extra={"execution": True}, **bounds)


class Section(BaseModel):
    """Base of all settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """The fields that decide what comes out, as JSON values."""
        knobs = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("execution")
        }
        return self.model_dump(mode="json", exclude=knobs)


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

    source: Literal["demo", "dataset", "parquet", "jsonl"] = Field("demo", description="Kind of input.")
    path: str = Field("", description="File or folder to read; unused for the demo scenes.")
    name: str = Field("", description="Name written to the source column; the source kind if empty.")
    image_root: str = Field(
        "", description="Folder that relative image paths may not leave; the input's folder if empty."
    )
    id_column: str = Field("", description="Column of unique ids; ids are made from content if empty.")
    image_column: str = Field("image", description="Column of an image or a list: bytes, HF image, or path.")
    question_column: str = Field("question", description="Column of the question text.")
    answer_column: str = Field("answer", description="Column of the reference answer.")
    conversation_column: str = Field("", description="LLaVA conversations; replaces question and answer columns.")
    kind_column: str = Field("", description="Column of question kinds; kinds are inferred if empty.")
    choices_column: str = Field("", description="Column of multiple-choice options.")
    split_column: str = Field("", description="Column of splits; splits are dealt by image if empty.")
    answer_form: Literal["infer", "sentence", "word", "letter", "number", "free"] = Field(
        "infer", description="Form answers take; inferred from kind and answer by default."
    )
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

    @model_validator(mode="after")
    def _shares_fit(self) -> SamplesConfig:
        if self.offline_share + self.online_share + self.dev_share > 1 + 1e-9:
            raise ValueError("offline_share + online_share + dev_share must be <= 1; eval gets the rest")
        if self.source != "demo" and not self.path:
            raise ValueError(f"path is empty; source {self.source} needs a file or folder")
        return self


class NegativesConfig(Section):
    """How images are perturbed and rejected responses decoded (recipe 1.4)."""

    method: Literal["adversarial", "noise", "diffusion", "blank"] = Field(
        "adversarial", description="PGD; random signs of equal norm; diffusion noise; mean-colour image."
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
    diffusion_step: int = Field(500, ge=0, le=999, description="Noise step of the VCD schedule, on normalised pixels.")
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
    def _lengths_fit(self) -> NegativesConfig:
        if self.min_length_ratio > self.max_length_ratio:
            raise ValueError("min_length_ratio must be <= max_length_ratio")
        return self


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
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(32, "Pairs scored together.", ge=1)
    part_rows: int = knob(256, "Rows a Parquet part (rounded up to whole batches).", ge=1)


class RolloutsConfig(Section):
    """How closed-ended questions are sampled and rewarded (recipe 1.5)."""

    prompts: int = Field(200, ge=1, description="Prompts a round, drawn without replacement over rounds.")
    group_size: int = Field(8, ge=2, le=256, description="Completions a prompt, G.")
    temperature: float = Field(
        1.0, gt=0, le=10, description="Sampling temperature; log-probs are of this distribution."
    )
    max_new_tokens: int = Field(24, ge=1, le=4096, description="Longest completion, tokens.")
    accuracy_reward: float = Field(1.0, gt=0, description="Reward of a right answer.")
    format_reward: float = Field(0.2, ge=0, description="Reward of an answer in the asked form; below accuracy_reward.")
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(16, "Prompts sampled together.", ge=1)
    part_rows: int = knob(128, "Groups a Parquet part (rounded up to whole batches).", ge=1)

    @model_validator(mode="after")
    def _truth_outweighs_form(self) -> RolloutsConfig:
        if self.format_reward >= self.accuracy_reward:
            raise ValueError("format_reward must be below accuracy_reward, so that form never outweighs truth")
        return self


class TrainingConfig(Section):
    """Hybrid GRPO on DeepSpeed (recipe 1.6-1.8); also its baselines DPO and SFT."""

    objective: Literal["mbpo", "dpo", "sft"] = Field(
        "mbpo", description="Hybrid GRPO, or a baseline on the same pairs."
    )
    offline_ratio: Literal["on_policy", "reference", "shaped"] = Field(
        "on_policy", description="Denominator of the offline ratio: recipe 1.6 modes (a), (b), (c)."
    )
    use_offline: bool = Field(True, description="Train on preference pairs.")
    use_online: bool = Field(True, description="Train on verified rollout groups.")
    learning_rate: float = Field(1e-6, gt=0, le=1, description="Peak learning rate of AdamW.")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="Shape after warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up, optimizer steps.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Global gradient norm is clipped to this.")
    pairs_per_step: int = Field(8, ge=1, description="Offline groups a step, over all processes.")
    groups_per_step: int = Field(8, ge=1, description="Online groups a step, over all processes.")
    epochs: int = Field(1, ge=1, le=1000, description="Passes over a round's pairs and groups.")
    inner_steps: int = Field(1, ge=1, le=64, description="Updates on each batch before the next, mu in the recipe.")
    clip_low: float = Field(0.2, ge=0, lt=1, description="Ratio clip below: 1 - clip_low.")
    clip_high: float = Field(0.2, ge=0, description="Ratio clip above: 1 + clip_high.")
    beta: float = Field(0.04, ge=0, description="Weight of the k3 KL to the reference (mbpo).")
    max_drop: float = Field(
        2.0,
        ge=0,
        description="A token with negative advantage is pushed no further once this far below the reference, "
        "nats; 0 sets no bound (recipe 1.6 as written).",
    )
    dpo_beta: float = Field(0.1, gt=0, description="Temperature of the DPO loss.")
    offline_weight: float = Field(1.0, ge=0, description="Weight of an offline group against an online one.")
    reward_chosen: float = Field(2.0, description="Reward of the chosen response.")
    reward_rejected: float = Field(0.0, description="Reward of the rejected response.")
    scale_by_std: bool = Field(True, description="Divide advantages by the group's population std.")
    normalization: Literal["sequence", "token", "constant"] = Field(
        "sequence",
        description="Mean over a completion's tokens (grpo), over all tokens (dapo), or by max length (dr_grpo).",
    )
    constant_length: int = Field(64, ge=1, description="Divisor of the constant normalisation, tokens.")
    freeze: Literal["none", "vision", "vision_and_projector", "language"] = Field(
        "vision", description="Parts whose weights stay bit-equal."
    )
    stop_rule: bool = Field(True, description="End early when log p(chosen) falls below the reference by stop_drop.")
    stop_drop: float = Field(0.1, gt=0, description="Allowed fall of mean log p(chosen), nats/token.")
    stop_window: int = Field(5, ge=1, description="Steps the fall is averaged over.")
    checkpoint_every: int = Field(20, ge=1, description="Steps between resumable checkpoints; also the stop rule's.")
    zero_stage: Literal[0, 1, 2] = Field(2, description="DeepSpeed ZeRO stage.")
    micro_groups: int = knob(4, "Groups a forward pass, a process.", ge=1)
    processes: int = knob(1, "Training processes (one an accelerator).", ge=1, le=1024)
    timeout_s: int = knob(86_400, "Kill the training processes after this long, seconds.", ge=1)

    @model_validator(mode="after")
    def _something_to_learn(self) -> TrainingConfig:
        if self.objective == "mbpo" and not (self.use_offline or self.use_online):
            raise ValueError("use_offline and use_online are both off; nothing is left to train on")
        return self


class EvaluationConfig(Section):
    """Which held-out questions are asked and how rates are reported (recipe 5)."""

    split: Literal["eval", "dev"] = Field("eval", description="Held-out split; defaults are tuned on dev only.")
    per_probe: int = Field(0, ge=0, description="Questions asked a probe; 0 asks all.")
    blind: Blind = Field("mask", description="How the model is blinded for the blind gap.")
    max_new_tokens: int = Field(48, ge=1, le=4096, description="Longest answer, tokens.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of all intervals.")
    bootstrap: int = Field(2000, ge=100, description="Resamples of the paired bootstrap.")
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="Stop when more than this share is unusable.")
    batch_size: int = knob(64, "Questions answered together.", ge=1)
    part_rows: int = knob(1024, "Rows a Parquet part (rounded up to whole batches).", ge=1)


class ReportConfig(Section):
    """What the HTML page shows."""

    title: str = Field("MBPO", max_length=200, description="Heading of the page.")
    pairs: int = Field(24, ge=0, le=500, description="Mined pairs shown with their images.")
    rollouts: int = Field(8, ge=0, le=500, description="Rollout groups shown.")
    predictions: int = Field(24, ge=0, le=500, description="Changed predictions shown.")


class PipelineConfig(Section):
    """One run of the whole method."""

    run: str = Field("default", pattern=RUN_NAME, description="Name under which the run's artifacts are found.")
    seed: int = Field(0, ge=0, lt=2**32, description="Every random number of the run derives from it.")
    rounds: int = Field(2, ge=1, le=100, description="Rollouts and training alternate this often.")
    baselines: list[Literal["sft", "dpo"]] = Field(
        default_factory=list, description="Also trained on the same pairs, for comparison."
    )
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    samples: SamplesConfig = Field(default_factory=SamplesConfig)
    negatives: NegativesConfig = Field(default_factory=NegativesConfig)
    pairs: PairsConfig = Field(default_factory=PairsConfig)
    rollouts: RolloutsConfig = Field(default_factory=RolloutsConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)


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
    """Validate nested settings after applying `section.field=value` overrides; see `load_config`."""
    if not isinstance(data, dict):
        raise ConfigError("the run config is not a mapping", where=where, remedy="See deployments/demo.yaml.")
    for override in overrides:
        _apply_override(data, override)
    try:
        return PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(map(_prose, error.errors())), where=where, remedy="docs/configuration.md lists every field."
        ) from error


def _prose(error: ErrorDetails) -> str:
    """One wrong field in words; a rule over several fields has already named the values it is about."""
    place = ".".join(map(str, error["loc"])) or "config"
    got = "" if isinstance(error["input"], dict) else f", got {error['input']!r:.80}"
    return f"{place}: {error['msg']}{got}"


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


BASELINES: tuple[str, ...] = get_args(get_args(PipelineConfig.model_fields["baselines"].annotation)[0])
