"""negatives: adversarial negative mining, and rejected images for pairs."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def mine_negatives(run: Run, samples: ArtifactRef, policy: PolicyRef, round_index: int = 0) -> ArtifactRef | None:
    """Change each image a little so that the right answer becomes unlikely; the answer given then is rejected.

    With `remine` each round mines its own share of the samples with the policy it starts from. None when nothing is
    trained on pairs.
    """
    if not run.config.wants_pairs:
        return None
    return run.stage(
        "negatives",
        key=run.mined("negatives", round_index),
        inputs={"samples": samples},
        policies={"policy": policy},
        round_index=round_index,
        rounds=run.config.training_rounds if run.config.remine else 1,
    )


def make_images(
    run: Run, samples: ArtifactRef, pairs: ArtifactRef | None, policy: PolicyRef, round_index: int = 0
) -> ArtifactRef | None:
    """A rejected image for each pair, where the objective looks at one; None where it does not."""
    if pairs is None or not run.config.makes_images:
        return None
    return run.stage(
        "negatives",
        key=run.mined("negatives/images", round_index),
        settings=run.config.images,
        inputs={"samples": samples, "pairs": pairs},
        policies={"policy": policy},
    )
