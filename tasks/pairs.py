"""pairs: preference-pair filtering by Image Information Gain."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def build_pairs(run: Run, negatives: ArtifactRef | None, policy: PolicyRef, round_index: int = 0) -> ArtifactRef | None:
    """Keep the pairs whose chosen answer needs the image most; the others are kept aside with a reason."""
    if negatives is None:
        return None
    key = run.mined("pairs", round_index)
    return run.stage("pairs", key=key, inputs={"negatives": negatives}, policies={"policy": policy})
