"""negatives: adversarial negative mining."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def mine_negatives(run: Run, samples: ArtifactRef, policy: PolicyRef) -> ArtifactRef:
    """Change each image a little so that the right answer becomes unlikely; the answer given then is rejected."""
    return run.stage("negatives", inputs={"samples": samples}, policies={"policy": policy})
