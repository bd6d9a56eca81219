"""All stages, in data-flow order: what each reads, what it writes, where its code is."""

from __future__ import annotations

from pathlib import Path

from mbpo_core import config, records
from mbpo_core.stage import External, StageSpec

_MODEL = ("mbpo_core.models", "mbpo_core.generation")


def _sample_sources(section: config.SamplesConfig) -> dict[str, External]:
    """What lies outside the store: the input, and the images it names by path or URL."""
    if section.source == "demo":
        return {}
    from mbpo_core.samples.inputs import fetched_images, named_images, read_files
    from mbpo_core.samples.paths import image_root

    sources = {
        "path": read_files(section),
        "image_root": External(image_root(section), only=lambda: named_images(section)),
    }
    if section.url_folder:
        sources["url_folder"] = External(Path(section.url_folder), only=lambda: fetched_images(section))
    return sources


def _negative_sources(section: config.NegativesConfig) -> dict[str, External]:
    """Models and tables that a generator reads from disk: what is in them counts, not where they lie."""
    names = ("word_vectors", "grounding_model", "segmentation_model", "clip_model")
    read = section.read()
    return {name: External(Path(read[name])) for name in names if read.get(name)}


def _all_the_way(section: config.TrainingConfig) -> config.TrainingConfig | None:
    """Weights part of the way are made of those at its end."""
    return section.model_copy(update={"interpolation": 1.0}) if section.interpolation < 1 else None


SAMPLES = StageSpec(
    name="samples",
    version=2,
    config=config.SamplesConfig,
    entry="mbpo_core.samples.stage:run",
    record=records.Sample,
    modules=("mbpo_core.samples", "mbpo_core.demo", "mbpo_core.verifiers"),
    reasons={
        "missing_value": "bad",
        "unreadable_image": "bad",
        "image_too_large": "bad",
        "image_outside_root": "bad",
        "image_count": "bad",
        "unknown_kind": "bad",
        "bad_choices": "bad",
        "answer_not_in_form": "bad",
        "duplicate_id": "bad",
        "same_answer": "filtered",
    },
    external=_sample_sources,
)

NEGATIVES = StageSpec(
    name="negatives",
    version=5,
    config=config.NegativesConfig,
    entry="mbpo_core.negatives.stage:run",
    record=records.Negative,
    inputs=("samples", "pairs"),  # pairs: those that rejected images are made for
    modules=("mbpo_core.negatives", "mbpo_core.objectives", "mbpo_core.verifiers", *_MODEL),
    reasons={
        "unreadable_image": "bad",
        "prompt_too_long": "bad",
        "no_rejected": "filtered",
        "no_other_image": "filtered",
        "nothing_to_change": "filtered",
        "same_answer": "filtered",
        "refusal": "filtered",
        "repetition": "filtered",
        "length": "filtered",
    },
    uses_policy=True,
    shared=True,
    external=_negative_sources,
)

PAIRS = StageSpec(
    name="pairs",
    version=2,
    config=config.PairsConfig,
    entry="mbpo_core.pairs.stage:run",
    record=records.PreferencePair,
    inputs=("negatives",),
    tables={"scored": records.PreferencePair},
    modules=("mbpo_core.pairs", "mbpo_core.objectives", *_MODEL),
    reasons={
        "unreadable_image": "bad",
        "no_rejected": "bad",
        "low_gain": "filtered",
        "not_text_leaning": "filtered",
        "implausible": "filtered",
        "outside_share": "filtered",
    },
    uses_policy=True,
    shared=True,
)

ROLLOUTS = StageSpec(
    name="rollouts",
    version=2,
    config=config.RolloutsConfig,
    entry="mbpo_core.rollouts.stage:run",
    record=records.RolloutGroup,
    inputs=("samples", "rollouts"),  # rollouts: of the round before, whose counts prompts are picked by
    modules=("mbpo_core.rollouts", "mbpo_core.objectives", "mbpo_core.verifiers", *_MODEL),
    reasons={"unreadable_image": "bad", "prompt_too_long": "bad", "unverifiable": "bad"},
    uses_policy=True,
    shared=True,
    by_round=True,
)

TRAINING = StageSpec(
    name="training",
    version=2,
    config=config.TrainingConfig,
    entry="mbpo_core.training.stage:run",
    record=records.TrainingStep,
    # negatives: rejected images made for the pairs; previous: the training artifact whose optimizer state goes on
    inputs=("pairs", "negatives", "rollouts", "previous"),
    modules=("mbpo_core.training", "mbpo_core.objectives", "mbpo_core.memory", *_MODEL),
    uses_policy=True,
    by_round=True,
    shorter=_all_the_way,
)

EVALUATION = StageSpec(
    name="evaluation",
    version=2,
    config=config.EvaluationConfig,
    entry="mbpo_core.evaluation.stage:run",
    record=records.Prediction,
    inputs=("samples",),
    modules=("mbpo_core.evaluation", "mbpo_core.objectives", "mbpo_core.verifiers", "mbpo_core.demo", *_MODEL),
    reasons={"unreadable_image": "bad", "prompt_too_long": "bad", "unverifiable": "bad"},
    uses_policy=True,
    shared=True,
)

REPORT = StageSpec(
    name="report",
    version=3,
    config=config.ReportConfig,
    entry="mbpo_core.reports.stage:run",
    record=None,
    inputs=("samples", "negatives", "pairs", "rollouts", "training", "evaluation"),
    modules=("mbpo_core.reports", "mbpo_core.objectives", "mbpo_core.methods", "mbpo_core.pages"),
)

STAGES: dict[str, StageSpec] = {
    spec.name: spec for spec in (SAMPLES, NEGATIVES, PAIRS, ROLLOUTS, TRAINING, EVALUATION, REPORT)
}
