"""The generators of negatives, by the name they have in `negatives.method` and in a row's `kind`.

Adding one is a function of a file, a line here, a line in `mbpo_core.methods.NEGATIVES`, and a test.
"""

from __future__ import annotations

import importlib

from mbpo_core.negatives.bench import Generator

GENERATORS: dict[str, str] = {
    "adversarial": "mining:adversarial",
    "noise": "baselines:noise",
    "diffusion": "baselines:diffusion",
    "blank": "baselines:blank",
    "key_region": "key_region:key_region",
    "masked": "key_region:masked",
    "crop": "crop:crop",
    "retrieved": "retrieved:retrieved",
    "counterfactual": "counterfactual:counterfactual",
    "given": "responses:given",
    "own": "responses:own",
    "dropped_image": "responses:dropped_image",
    "corrupted": "corrupted:corrupted",
    "ranked": "ranked:ranked",
    "collage": "collage:collage",
    "segment": "responses:segment",
}
"""Where each is: module of this package, and function; imported when it is needed."""


def generator(method: str) -> Generator:
    """The function behind a name."""
    module, _, function = GENERATORS[method].partition(":")
    found: Generator = getattr(importlib.import_module(f"mbpo_core.negatives.{module}"), function)
    return found
