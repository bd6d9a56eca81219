"""Image features: every distinct image of a batch goes through the vision tower once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mbpo_core.errors import ModelError
from mbpo_core.models.groups import ImageInput, Prompt
from mbpo_core.models.policy import Policy
from mbpo_core.records import Blind


def encode_images(policy: Policy, prompts: Sequence[Prompt], blind: Blind | None) -> list[list[Tensor]] | None:
    """Features (F, D) of each prompt's images; None where none are seen.

    Images with equal keys are encoded once, and their features (and gradients) are shared. Under `mean` and
    `black` all images of one size are equal.
    """
    if blind in ("mask", "drop"):
        return None
    shown = [image if blind is None else policy.family.blinded(image, blind) for p in prompts for image in p.images]
    if not shown:
        return None
    distinct: dict[object, ImageInput] = {image.key or id(image): image for image in shown}
    encoded = dict(zip(distinct, encode(policy, list(distinct.values())), strict=True))
    features = (encoded[image.key or id(image)] for image in shown)
    return [[next(features) for _ in prompt.images] for prompt in prompts]


def encode(policy: Policy, images: Sequence[ImageInput]) -> list[Tensor]:
    """Features (F, D) of each image, differentiable in its pixels.

    Raises:
        ModelError: the tower yields another number of features than the prompt has positions for.
    """
    features = policy.family.encode(policy.model, images)
    for image, found in zip(images, features, strict=True):
        if len(found) != image.features:
            raise ModelError(
                f"a prompt has {image.features} image positions but the vision tower yields {len(found)} features",
                where=policy.where,
                remedy="patch size, merge size and vision_feature_select_strategy of config.json must fit the weights.",
            )
    return features
