"""What there is to choose from: negatives, objectives and whole methods, in three tables that need no torch.

`mbpo methods` prints them and docs/methods.md is made of them. An entry names its code by its key: a negative is a
generator of `mbpo_core.negatives.generators`, an objective a row of `mbpo_core.objectives.table`, a method a set of
settings that stand in for the defaults of a run config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mbpo_core.objectives.passes import BLIND, BLIND_REJECTED, CHOSEN, REJECTED, SLIP, WRONG, WRONG_REJECTED, Pass


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
        line: what it does, in one line.
        source: where it was published.
        needs: what there must be, by its own settings, besides questions with an image and an answer; "" for nothing.
        cost: passes through the model, a pair or a sample; an answer is a greedy completion.
    """

    line: str
    source: str
    needs: str
    cost: str


@dataclass(frozen=True)
class NegativeEntry(Entry):
    """A generator of negatives.

    Attributes:
        settings: the fields of `NegativesConfig` that it reads besides those which all read.
        options: what other settings than the default ones need.
    """

    settings: tuple[str, ...] = ()
    options: str = ""


@dataclass(frozen=True)
class MethodEntry(Entry):
    """A whole method.

    Attributes:
        settings: of the run config, by section, or its own; what a config says itself comes first.
        given: what a config has to say itself, by section, with an example.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_KEYWORDS = ("keywords", "position_power", "similarity_weight", "position_decay", "word_vectors")
_REGION = ("detector", "region_share", "grounding_model", "segmentation_model", "grounding_threshold", *_KEYWORDS)
_BALL = ("norm", "epsilon")
_ATTACK = (*_BALL, "step_size", "steps", "random_start", "momentum", "stop_logprob", "stop_on_flip", "target")

_DETECTORS = "detector boxes: labelled boxes in meta; detector grounded: the folder of a GroundingDINO model"
_SECOND_MODEL = "the folder of a second model"

NEGATIVES: dict[str, NegativeEntry] = {
    "adversarial": NegativeEntry(
        "the answer to an image that PGD has changed until the right answer is unlikely; with attack_region nothing "
        "outside the key region",
        "MBPO arXiv:2506.08022",
        "",
        "`steps` (10) forward and backward, 3 answers",
        (*_ATTACK, "attack_region", *_REGION),
        f"attack_region with {_DETECTORS}",
    ),
    "noise": NegativeEntry(
        "random signs on the surface of the attack's ball: what the attack must beat",
        "POVID arXiv:2402.11411, as MBPO's baseline",
        "",
        "3 answers",
        _BALL,
    ),
    "diffusion": NegativeEntry(
        "diffusion noise over the whole image", "VCD arXiv:2311.16922", "", "3 answers", ("diffusion_step",)
    ),
    "blank": NegativeEntry("an image of nothing but the mean colour", "V-DPO arXiv:2411.02712", "", "3 answers"),
    "key_region": NegativeEntry(
        "diffusion noise where the image shows what the answer's keywords name, and nowhere else",
        "MFPO arXiv:2410.15334",
        "",
        "1 forward, 1 backward a keyword (detector saliency), 3 answers",
        ("diffusion_step", *_REGION),
        _DETECTORS,
    ),
    "masked": NegativeEntry(
        "the key region filled with the mean colour",
        "AdaViP arXiv:2504.15619, with a fill in place of inpainting",
        "",
        "1 forward, 1 backward a keyword (detector saliency), 3 answers",
        _REGION,
        _DETECTORS,
    ),
    "crop": NegativeEntry(
        "a random crop of a small area, scaled back up", "mDPO arXiv:2406.11839", "", "3 answers",
        ("crop_min", "crop_max"),
    ),
    "retrieved": NegativeEntry(
        "the most similar other image of the data, by the policy's own image embedding",
        "Re-Align arXiv:2502.13146",
        "several different images",
        "1 encoding of each image of the data, 3 answers",
    ),
    "counterfactual": NegativeEntry(
        "another image for which the same question has another answer: found in the data, or what it is about painted "
        "over",
        "ours; conditional preference as in mDPO and MFPO",
        "questions that recur with other answers, or several different images, or answers that tell a colour",
        "1 encoding of each image of the data where no question recurs, 3 answers",
        ("counterfactual", "swapped", "descriptions", *_REGION),
        f"counterfactual recolour: answers that tell a colour, with {_DETECTORS}",
    ),
    "given": NegativeEntry(
        "the rejected response that the data brings along",
        "RLHF-V arXiv:2312.00849, RLAIF-V arXiv:2405.17220",
        "a column of rejected responses (samples.rejected_column)",
        "2 answers",
    ),
    "own": NegativeEntry(
        "the policy's own answer to the clean image, where it is wrong: what any attack must beat", "baseline", "",
        "2 answers",
    ),
    "dropped_image": NegativeEntry(
        "the first half of the right answer, finished without the image (DropoutNTP)", "MPO arXiv:2411.10442", "",
        "3 answers",
    ),
    "corrupted": NegativeEntry(
        "the right answer with words swapped for words that stand in their place in other answers",
        "POVID arXiv:2402.11411, by rule in place of a language model",
        "answers that are yes or no, options, numbers, or worded alike",
        "2 answers",
        ("corrupted_words",),
    ),
    "ranked": NegativeEntry(
        "the worst of the policy's own answers, as its checks of each claim, a CLIP model, or gain rank them",
        "RLAIF-V arXiv:2405.17220; CLIP-DPO arXiv:2408.10433",
        "",
        "2 answers, `candidates` (10) sampled, 1 forward a claim (scorer claims)",
        ("candidates", "scorer", "clip_model", "min_score_gap"),
        "scorer clip: the folder of a CLIP model",
    ),
    "collage": NegativeEntry(
        "the question asked of one image among several, and the policy's wrong answer to that",
        "MIA-DPO arXiv:2410.17637",
        "several different images, one a question, and a model that reads several at once",
        "3 answers",
        ("layout", "collage_images"),
        "layout grid and picture_in_picture: any model",
    ),
    "segment": NegativeEntry(
        "the right answer with a stretch of it written anew by the policy", "SAPO arXiv:2405.20830 (self-augmented)",
        "", "3 answers", ("segment_tokens",),
    ),
}  # fmt: skip
"""Generators, by the name they have in `negatives.method` and in a row's `kind`."""


@dataclass(frozen=True)
class ObjectiveEntry:
    """A loss on pairs.

    Attributes:
        line: what it is, in one line.
        source: where it was published.
        passes: what goes through the policy with gradient.
        fixed: what goes through the policy without.
        reference: what the frozen reference scores, once before training; `passes` if None.
        settings: the fields of `TrainingConfig` that only such losses read.
    """

    line: str
    source: str
    passes: tuple[Pass, ...]
    fixed: tuple[Pass, ...] = ()
    reference: tuple[Pass, ...] | None = None
    settings: tuple[str, ...] = ()

    @property
    def scored(self) -> tuple[Pass, ...]:
        """What the reference scores."""
        return self.passes if self.reference is None else self.reference

    @property
    def needs(self) -> str:
        """What a pair must have beyond question, images and chosen response."""
        every = {*self.passes, *self.fixed, *self.scored}
        words = []
        if any(one.side == "rejected" for one in every):
            words.append("rejected response")
        if any(one.view == "rejected" for one in every) or SLIP in every:
            words.append("rejected image")
        if "second_reference" in self.settings:
            words.append(_SECOND_MODEL)
        return ", ".join(words)

    @property
    def cost(self) -> str:
        """Passes through the model, a pair; completions under one view share one prompt."""
        views = len({one.view for one in self.passes})
        once = len(self.scored) + (SLIP in self.scored)
        words = [
            f"{len(self.passes)} with gradient ({views} {'prompt' if views == 1 else 'prompts'})",
            f"{len(self.fixed)} without" if self.fixed else "",
            f"{once} once by {'each' if 'second_reference' in self.settings else 'the'} reference",
        ]
        return ", ".join(filter(None, words))


_BOTH = (CHOSEN, REJECTED)
_THREE = (CHOSEN, REJECTED, WRONG)

OBJECTIVES: dict[str, ObjectiveEntry] = {
    "grpo": ObjectiveEntry(
        "the pair as a group of two with rewards 2 and 0, under the clipped surrogate with a KL term",
        "MBPO arXiv:2506.08022",
        _BOTH,
        settings=("offline_ratio", "reward_chosen", "reward_rejected"),
    ),
    "sft": ObjectiveEntry("likelihood of the chosen response", "baseline", (CHOSEN,)),
    "dpo": ObjectiveEntry("log-odds of ranking the pair rightly", "arXiv:2305.18290", _BOTH),
    "ipo": ObjectiveEntry(
        "squared distance of the margin, nats a token, from 1 / (2 beta)", "arXiv:2310.12036", _BOTH
    ),
    "image": ObjectiveEntry(
        "chosen under the clean against chosen under the rejected image, and an anchor; no rejected response",
        "the image side of mDPO arXiv:2406.11839 and MFPO arXiv:2410.15334",
        (CHOSEN, WRONG),
        settings=("image_weight", "margin_weight", "margin", "image_cap"),
    ),
    "mdpo": ObjectiveEntry(
        "DPO, chosen under the clean against chosen under the rejected image, and an anchor",
        "arXiv:2406.11839",
        _THREE,
        settings=("margin",),
    ),
    "mfpo": ObjectiveEntry(
        "the terms of mdpo, each with a weight; key-region images and a curriculum make it MFPO",
        "arXiv:2410.15334",
        _THREE,
        settings=("text_weight", "image_weight", "margin_weight", "margin"),
    ),
    "chip": ObjectiveEntry(
        "both margins and a KL term in one sigmoid; tokens that the two responses do not share weigh more",
        "arXiv:2501.16629, released code",
        _THREE,
        settings=("segment_weight", "chip_kl"),
    ),
    "adavip": ObjectiveEntry(
        "softmax of the pair's right side against its wrong response and its wrong image: the harder weighs more",
        "arXiv:2504.15619",
        _THREE,
    ),
    "rdpo": ObjectiveEntry("mdpo without the anchor (Re-Align)", "arXiv:2502.13146", _THREE),
    "povid": ObjectiveEntry(
        "half DPO on the pair, half DPO against the tokens that come to mind under the rejected image (stage 2; "
        "stage 1 is dpo)",
        "arXiv:2402.11411",
        (CHOSEN, REJECTED, SLIP),
    ),
    "vdpo": ObjectiveEntry(
        "DPO on log-probs guided away from what the blind model says",
        "arXiv:2411.02712",
        _BOTH,
        fixed=(BLIND, BLIND_REJECTED),
        reference=_BOTH,
        settings=("guidance", "blind"),
    ),
    "mpo": ObjectiveEntry(
        "weighted sum of DPO (preference), BCO (quality) and SFT (generation)",
        "arXiv:2411.10442",
        _BOTH,
        settings=("preference_weight", "quality_weight", "generation_weight"),
    ),
    "vigil": ObjectiveEntry(
        "DPO and a gated term that raises the gain of chosen over the reference's",
        "arXiv:2606.26387; the term is our reading",
        (CHOSEN, REJECTED, BLIND),
        settings=("vigil_weight", "vigil_beta", "blind"),
    ),
    "p2dpo": ObjectiveEntry(
        "DPO and a calibration term: the chosen response leans on the region that the rejected image lacks",
        "arXiv:2606.03376, released code",
        _THREE,
        reference=(CHOSEN, REJECTED, WRONG_REJECTED),
        settings=("calibration_weight",),
    ),
    "mrpo": ObjectiveEntry(
        "DPO against the weighted harmonic mean of two references",
        "arXiv:2405.16388, released code",
        _BOTH,
        settings=("second_reference", "reference_share", "reference_clip"),
    ),
}  # fmt: skip
"""Losses on pairs, by the name they have in `training.objective`; "none" leaves pairs out."""


def objective_passes(objective: str, image_term: bool) -> ObjectiveEntry | None:
    """The entry of an objective with what further terms need; None where pairs are left out.

    Args:
        objective: a value of `training.objective`.
        image_term: whether a term is added that scores chosen under the rejected image.
    """
    entry = OBJECTIVES.get(objective)
    if entry is None or not image_term:
        return entry
    return replace(
        entry,
        passes=tuple(dict.fromkeys((*entry.passes, CHOSEN, WRONG))),
        reference=tuple(dict.fromkeys((*entry.scored, CHOSEN, WRONG))),
    )


def _pairs_only(objective: str, **training: Any) -> dict[str, Any]:
    return {"training": {"objective": objective, "use_online": False, **training}}


def _groups_only(**training: Any) -> dict[str, Any]:
    return {"training": {"objective": "none", **training}}


def _with_images(settings: dict[str, Any], method: str, **images: Any) -> dict[str, Any]:
    return settings | {"images": {"method": method, **images}}


def _mined_by(settings: dict[str, Any], method: str, **negatives: Any) -> dict[str, Any]:
    """Pairs that no attack has made: the gain still ranks them, but their rejected side need not lean on the text."""
    return settings | {"negatives": {"method": method, **negatives}, "pairs": {"text_leaning": False}}


def _recoloured(settings: dict[str, Any], **negatives: Any) -> dict[str, Any]:
    return _mined_by(settings, "counterfactual", counterfactual="recolour", **negatives) | {"mined_images": True}


def _method(
    line: str,
    source: str,
    settings: dict[str, Any],
    *,
    needs: str = "",
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> MethodEntry:
    """What a method needs and costs follows from its parts.

    Args:
        needs: what its settings need beyond what the parts need by theirs.
    """
    training = settings.get("training", {})
    mined = NEGATIVES[settings.get("negatives", {}).get("method", "adversarial")]
    entry = objective_passes(training.get("objective", "grpo"), image_term=training.get("add_image", 0) > 0)
    words, cost = [], []
    if entry is not None:
        words.append(mined.needs)
        passes = len(entry.passes) + len(entry.fixed)
        cost.append(f"{passes} {'pass' if passes == 1 else 'passes'} a pair")
        if "rejected image" in entry.needs:
            words.append(NEGATIVES[settings.get("images", {}).get("method", "key_region")].needs)
    if training.get("use_online", True):
        words.append("closed-ended questions")
        cost.append(f"G answers and {'2 ' if training.get('perception_weight') else ''}G passes a question")
    words.append(needs)
    needed = "; ".join(dict.fromkeys(filter(None, words)))
    return MethodEntry(line, source, needed, "; ".join(cost), settings, given or {})


METHODS: dict[str, MethodEntry] = {
    "mbpo": _method(
        "adversarially mined pairs and verified online groups, under one GRPO objective", "arXiv:2506.08022", {}
    ),
    "mbpo_offline": _method("MBPO without its online groups", "arXiv:2506.08022", _pairs_only("grpo")),
    "mbpo_region": _method(
        "MBPO whose attack changes the key region only", "ours", {"negatives": {"attack_region": True}}
    ),
    "mbpo_counterfactual": _method(
        "MBPO with an image side (chosen under the clean against chosen under a counterfactual image) and a likelihood "
        "term",
        "ours",
        _with_images({"training": {"add_image": 1.0, "add_likelihood": 1.0}}, "counterfactual"),
    ),
    "mbpo_remined": _method(
        "MBPO that mines each round's share of the pairs with the policy of that round", "ours", {"remine": True}
    ),
    "mbpo_mopps": _method(
        "MBPO that asks online what the policy is expected to get right half the time",
        "ours, with MoPPS arXiv:2507.04632",
        {"rollouts": {"select": "mopps"}},
    ),
    "mfpo": _method(
        "DPO, image side and anchor against noise in the key regions, easy pairs first",
        "arXiv:2410.15334",
        _with_images(_pairs_only("mfpo", curriculum="token_entropy"), "key_region"),
    ),
    "mfpo_online": _method(
        "MFPO with MBPO's online groups",
        "ours",
        _with_images({"training": {"objective": "mfpo", "curriculum": "token_entropy"}}, "key_region"),
    ),
    "image": _method(
        "the image side alone against counterfactual images, with anchor and likelihood term",
        "ours",
        _mined_by(_pairs_only("image", add_likelihood=1.0), "counterfactual", responses="none")
        | {"mined_images": True},
    ),
    "recoloured": _method(
        "the image side, with anchor and likelihood term, on samples painted over, and the answers that follow",
        "ours",
        _recoloured(_pairs_only("image", add_likelihood=1.0, interpolation=0.7), responses="none"),
    ),
    "mbpo_recoloured": _method(
        "MBPO on samples painted over in place of attacked ones, with image side and likelihood term",
        "ours",
        _recoloured({"training": {"add_image": 1.0, "add_likelihood": 1.0}}),
    ),
    "sft_recoloured": _method(
        "likelihood of the chosen responses, on samples painted over, and the answers that follow",
        "ours",
        _recoloured(_pairs_only("sft"), responses="none"),
    ),
    "sft": _method("likelihood of the chosen responses", "baseline", _pairs_only("sft")),
    "dpo": _method("direct preference optimisation", "arXiv:2305.18290", _pairs_only("dpo")),
    "dpo_own": _method(
        "DPO against the policy's own wrong answers to the clean images",
        "baseline",
        _mined_by(_pairs_only("dpo"), "own"),
    ),
    "ipo": _method("DPO with a squared loss", "arXiv:2310.12036", _pairs_only("ipo")),
    "mdpo": _method(
        "DPO, image side and anchor against random crops",
        "arXiv:2406.11839",
        _with_images(_pairs_only("mdpo"), "crop"),
    ),
    "chip": _method(
        "response side, image side and a KL term in one sigmoid, against diffusion noise",
        "arXiv:2501.16629",
        _with_images(_pairs_only("chip"), "diffusion"),
    ),
    "adavip": _method(
        "response and image side under one softmax, against images whose key region is filled",
        "arXiv:2504.15619",
        _with_images(_pairs_only("adavip"), "masked"),
    ),
    "realign": _method(
        "DPO and image side against the most similar other images (rDPO)",
        "arXiv:2502.13146",
        _with_images(_pairs_only("rdpo"), "retrieved"),
    ),
    "povid": _method(
        "DPO, and DPO against what comes to mind under diffusion noise (stage 2)",
        "arXiv:2402.11411",
        _with_images(_pairs_only("povid"), "diffusion"),
    ),
    "povid_text": _method(
        "DPO against right answers with words swapped (POVID's stage 1, by rule in place of a language model)",
        "arXiv:2402.11411",
        _mined_by(_pairs_only("dpo"), "corrupted"),
    ),
    "vdpo": _method(
        "DPO on log-probs guided away from the blind model's", "arXiv:2411.02712", _pairs_only("vdpo", blind="mean")
    ),
    "mpo": _method(
        "DPO, BCO and SFT on answers finished without the image",
        "arXiv:2411.10442",
        _mined_by(_pairs_only("mpo"), "dropped_image"),
    ),
    "vigil": _method(
        "DPO and a gated term on the gain of the right answer", "arXiv:2606.26387, our reading", _pairs_only("vigil")
    ),
    "p2dpo": _method(
        "DPO and a calibration term against images whose key region is filled",
        "arXiv:2606.03376",
        _with_images(_pairs_only("p2dpo"), "masked"),
    ),
    "mrpo": _method(
        "DPO against two references",
        "arXiv:2405.16388",
        _pairs_only("mrpo"),
        needs=_SECOND_MODEL,
        given={"training": {"second_reference": "/models/second"}},
    ),
    "clip_dpo": _method(
        "DPO against the policy's own worst answers, as CLIP ranks them",
        "arXiv:2408.10433",
        _mined_by(_pairs_only("dpo"), "ranked", scorer="clip", min_score_gap=0.02),
        needs="the folder of a CLIP model",
        given={"negatives": {"clip_model": "/models/clip"}},
    ),
    "rlaif_v": _method(
        "DPO against the policy's own worst answers, as its checks of each claim rank them",
        "arXiv:2405.17220",
        _mined_by(_pairs_only("dpo"), "ranked", scorer="claims"),
    ),
    "rlhf_v": _method(
        "DPO on the rejected responses that the data brings along",
        "arXiv:2312.00849",
        _mined_by(_pairs_only("dpo"), "given"),
    ),
    "mia_dpo": _method(
        "DPO on questions about one image among several",
        "arXiv:2410.17637",
        _mined_by(_pairs_only("dpo"), "collage"),
    ),
    "self_augmented": _method(
        "DPO against right answers with a stretch written anew (self-augmented, SAPO)",
        "arXiv:2405.20830",
        _mined_by(_pairs_only("dpo"), "segment"),
    ),
    "grpo": _method("verified online groups alone", "arXiv:2402.03300", _groups_only()),
    "dr_grpo": _method(
        "online groups without division by their std or their answers' length",
        "arXiv:2503.20783",
        _groups_only(advantage_scale="none", normalization="constant", beta=0.0),
    ),
    "dapo": _method(
        "online groups with a higher upper clip, a mean over all tokens, a penalty for length, and no KL term",
        "arXiv:2503.14476",
        _groups_only(normalization="token", clip_high=0.28, beta=0.0) | {"rollouts": {"overlong_share": 0.2}},
    ),
    "gspo": _method(
        "online groups with one ratio a sequence",
        "arXiv:2507.18071",
        _groups_only(surrogate="sequence", clip_low=3e-4, clip_high=4e-4),
    ),
    "sapo": _method("online groups with a soft clip", "arXiv:2511.20347", _groups_only(surrogate="soft")),
    "cispo": _method(
        "online groups whose ratios are clipped, and their gradients not",
        "arXiv:2506.13585",
        _groups_only(surrogate="cispo"),
    ),
    "papo": _method(
        "online groups, and a KL term that pushes the answer away from what it is with most of the image hidden",
        "arXiv:2507.06448",
        _groups_only(perception_weight=0.01),
    ),
}
"""Whole methods, by the name they have in the run config's `method`."""


TITLES: dict[str, str] = {
    "base": "base", "trained": "MBPO",
    "mbpo": "MBPO", "mbpo_offline": "MBPO offline", "mbpo_region": "MBPO in key regions",
    "mbpo_counterfactual": "MBPO + counterfactual images", "mbpo_remined": "MBPO remined",
    "mbpo_mopps": "MBPO + MoPPS", "mfpo": "MFPO", "mfpo_online": "MFPO + online groups", "image": "Image side alone",
    "recoloured": "Recoloured", "mbpo_recoloured": "MBPO recoloured", "sft_recoloured": "SFT recoloured",
    "sft": "SFT", "dpo": "DPO", "dpo_own": "DPO, own wrong answers", "ipo": "IPO", "mdpo": "mDPO", "chip": "CHiP",
    "adavip": "AdaViP", "realign": "Re-Align", "povid": "POVID", "povid_text": "POVID stage 1",
    "vdpo": "V-DPO", "mpo": "MPO", "vigil": "VIGIL", "p2dpo": "P2-DPO",
    "mrpo": "MRPO", "clip_dpo": "CLIP-DPO", "rlaif_v": "RLAIF-V", "rlhf_v": "RLHF-V", "mia_dpo": "MIA-DPO",
    "self_augmented": "Self-augmented DPO", "grpo": "GRPO online", "dr_grpo": "Dr. GRPO", "dapo": "DAPO",
    "gspo": "GSPO", "sapo": "SAPO", "cispo": "CISPO", "papo": "PAPO",
}  # fmt: skip
"""What people call a policy, by its label in tables: "base", a baseline's or a method's name, "trained" for MBPO."""


def title_of(label: str) -> str:
    """Heading of a policy in tables and charts; a label that no method has stands for itself."""
    return TITLES.get(label, label)
