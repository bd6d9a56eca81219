"""The losses on pairs, by the name they have in `training.objective`.

Adding one is a file with its equation, a line here, a line in `mbpo_core.methods.OBJECTIVES` that says what it looks
at, and a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from mbpo_core.objectives.adavip import adavip_loss
from mbpo_core.objectives.chip import chip_loss
from mbpo_core.objectives.contrast import anchor_loss, image_loss
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.ipo import ipo_loss
from mbpo_core.objectives.mdpo import mdpo_loss
from mbpo_core.objectives.mfpo import mfpo_loss
from mbpo_core.objectives.mpo import mpo_loss
from mbpo_core.objectives.mrpo import adaptive_share, clipped_reference, combined_reference
from mbpo_core.objectives.p2dpo import calibration_loss
from mbpo_core.objectives.passes import (
    BLIND,
    BLIND_REJECTED,
    CHOSEN,
    REJECTED,
    SLIP,
    WRONG,
    WRONG_REJECTED,
    PairScores,
    Pass,
)
from mbpo_core.objectives.povid import povid_loss
from mbpo_core.objectives.rdpo import rdpo_loss
from mbpo_core.objectives.vdpo import guided_logprobs
from mbpo_core.objectives.vigil import decoupling_loss

if TYPE_CHECKING:
    from mbpo_core.config import TrainingConfig

PairLoss = Callable[[PairScores, "TrainingConfig"], Tensor]
"""(P,) nats, one a pair, not reduced."""


def _image(scores: PairScores, config: TrainingConfig) -> Tensor:
    return config.image_weight * image_term(scores, config) + config.margin_weight * anchor_term(scores, config)


def _mfpo(scores: PairScores, config: TrainingConfig) -> Tensor:
    return mfpo_loss(
        *_three(scores),
        beta=config.dpo_beta,
        margin=config.margin,
        text_weight=config.text_weight,
        image_weight=config.image_weight,
        margin_weight=config.margin_weight,
    )


def _chip(scores: PairScores, config: TrainingConfig) -> Tensor:
    return chip_loss(
        *(scores.weighted_ratio(one) for one in (CHOSEN, REJECTED, WRONG)),
        *(scores.total(scores.divergences, one) for one in (CHOSEN, REJECTED)),
        beta=config.dpo_beta,
        kl_weight=config.chip_kl,
    )


def _vdpo(scores: PairScores, config: TrainingConfig) -> Tensor:
    guided = [
        guided_logprobs(scores.total(scores.policy, see), scores.total(scores.policy, blind), guidance=config.guidance)
        - scores.total(scores.reference, see)
        for see, blind in ((CHOSEN, BLIND), (REJECTED, BLIND_REJECTED))
    ]
    return dpo_loss(guided[0], guided[1], beta=config.dpo_beta)


def _mpo(scores: PairScores, config: TrainingConfig) -> Tensor:
    return mpo_loss(
        *_two(scores),
        -scores.mean(scores.policy, CHOSEN),
        scores.shift,
        beta=config.dpo_beta,
        preference_weight=config.preference_weight,
        quality_weight=config.quality_weight,
        generation_weight=config.generation_weight,
    )


def _vigil(scores: PairScores, config: TrainingConfig) -> Tensor:
    gains = [scores.mean(who, CHOSEN) - scores.mean(who, BLIND) for who in (scores.policy, scores.reference)]
    term = decoupling_loss(gains[0], gains[1], beta=config.vigil_beta, mean=scores.gain_mean, std=scores.gain_std)
    return dpo_loss(*_two(scores), beta=config.dpo_beta) + config.vigil_weight * term


def _p2dpo(scores: PairScores, config: TrainingConfig) -> Tensor:
    term = calibration_loss(
        scores.total(scores.policy, CHOSEN),
        scores.total(scores.policy, WRONG),
        scores.total(scores.reference, REJECTED),
        scores.total(scores.reference, WRONG_REJECTED),
        beta=config.dpo_beta,
    )
    return dpo_loss(*_two(scores), beta=config.dpo_beta) + config.calibration_weight * term


def _mrpo(scores: PairScores, config: TrainingConfig) -> Tensor:
    first = [scores.total(scores.reference, one) for one in (CHOSEN, REJECTED)]
    second = [scores.total(scores.second, one) for one in (CHOSEN, REJECTED)]
    share = config.reference_share or adaptive_share(first[0] - first[1], second[0] - second[1])
    sizes = [(near + far).abs() for near, far in zip(first, second, strict=True)]
    ratios = []
    for one, near, far, size in zip((CHOSEN, REJECTED), first, second, sizes, strict=True):
        # The released code splits the clip between the sides by the size of their log-probs.
        clip = config.reference_clip * size / (sizes[0] + sizes[1])
        reference = combined_reference(clipped_reference(near, far, clip=clip), far, share=share)
        ratios.append(scores.total(scores.policy, one) - reference)
    return dpo_loss(ratios[0], ratios[1], beta=config.dpo_beta)


def image_term(scores: PairScores, config: TrainingConfig) -> Tensor:
    """(P,) the image side: chosen under the clean image against chosen under the rejected one."""
    return image_loss(scores.ratio(CHOSEN), scores.ratio(WRONG), beta=config.dpo_beta, cap=config.image_cap)


def anchor_term(scores: PairScores, config: TrainingConfig) -> Tensor:
    """(P,) chosen must not become unlikelier than it was under the reference."""
    return anchor_loss(scores.ratio(CHOSEN), beta=config.dpo_beta, margin=config.margin)


def likelihood_term(scores: PairScores, config: TrainingConfig) -> Tensor:
    """(P,) minus the mean log-prob of chosen, nats per token."""
    return -scores.mean(scores.policy, CHOSEN)


def _two(scores: PairScores) -> tuple[Tensor, Tensor]:
    return scores.ratio(CHOSEN), scores.ratio(REJECTED)


def _three(scores: PairScores) -> tuple[Tensor, Tensor, Tensor]:
    return (*_two(scores), scores.ratio(WRONG))


PAIR_LOSSES: dict[str, PairLoss] = {
    "dpo": lambda s, c: dpo_loss(*_two(s), beta=c.dpo_beta),
    "ipo": lambda s, c: ipo_loss(s.mean_ratio(CHOSEN), s.mean_ratio(REJECTED), beta=c.dpo_beta),
    "image": _image,
    "mdpo": lambda s, c: mdpo_loss(*_three(s), beta=c.dpo_beta, anchor=c.margin),
    "mfpo": _mfpo,
    "chip": _chip,
    "adavip": lambda s, c: adavip_loss(*_three(s), beta=c.dpo_beta),
    "rdpo": lambda s, c: rdpo_loss(*_three(s), beta=c.dpo_beta),
    "povid": lambda s, c: povid_loss(*_two(s), s.ratio(SLIP), beta=c.dpo_beta),
    "vdpo": _vdpo,
    "mpo": _mpo,
    "vigil": _vigil,
    "p2dpo": _p2dpo,
    "mrpo": _mrpo,
}
"""All but "grpo" and "sft", which weigh tokens and not pairs: see `mbpo_core.training.losses`."""

DIVERGENCES: dict[str, tuple[Pass, ...]] = {"chip": (CHOSEN, REJECTED)}
"""Objectives that need the KL divergence from the reference over the whole vocabulary, and of which passes."""


def added_terms(config: TrainingConfig) -> list[tuple[float, PairLoss]]:
    """Weighted terms that any objective on pairs may be given on top."""
    terms = (
        (config.add_image, image_term),
        (config.add_anchor, anchor_term),
        (config.add_likelihood, likelihood_term),
    )
    return [(weight, term) for weight, term in terms if weight > 0]
