"""Rejected images that differ from the clean ones in the key region alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from mbpo_core.negatives.baselines import diffusion_noise, mean_colour
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.items import Item, Made, Perturbed, measured
from mbpo_core.negatives.regions import find_regions


def key_region(bench: Bench, several: Sequence[Known]) -> list[Made]:
    """Diffusion noise in the key region; see `baselines.diffusion_noise`.

        m' = M (sqrt(abar) m + sqrt(1 - abar) n) + (1 - M) m

    Source: MFPO arXiv:2410.15334, recipe 2.4, eq. (5).
    """
    return _made(bench, several, lambda item: diffusion_noise(bench.policy, item, bench.settings.diffusion_step))


def masked(bench: Bench, several: Sequence[Known]) -> list[Made]:
    """The key region filled with the mean colour.

        m' = M mean + (1 - M) m

    Source: AdaViP arXiv:2504.15619, with a fill in place of inpainting.
    """

    def fill(item: Item) -> Perturbed:
        assert item.region is not None  # `_made` sets it
        clean = item.images.float()
        filled = [torch.where(item.region, levels, clean) for levels in mean_colour(bench.policy, item.images)]
        return measured(item, filled[0], filled[1])

    return _made(bench, several, fill)


def _made(bench: Bench, several: Sequence[Known], change: Callable[[Item], Perturbed]) -> list[Made]:
    """Each sample's images changed inside its key region."""
    return [
        Made.of(
            change(replace(known.item(bench.settings), region=region.masks[:, None])),
            masks=region.masks,
            keywords=region.keywords,
            detector=region.detector,
            how=region.how,
        )
        for known, region in zip(several, find_regions(bench, [known.task for known in several]), strict=True)
    ]
