"""pairs: preference-pair filtering by Image Information Gain."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def build_pairs(run: Run, negatives: ArtifactRef, policy: PolicyRef) -> ArtifactRef:
    """Keep the pairs whose chosen answer needs the image most; the others are kept aside with a reason."""
    return run.stage("pairs", inputs={"negatives": negatives}, policies={"policy": policy})
