"""evaluation: every policy answers the same held-out questions."""

from __future__ import annotations

from collections.abc import Sequence

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def evaluate_policies(run: Run, samples: ArtifactRef, policies: Sequence[PolicyRef]) -> ArtifactRef:
    """Predictions and their summary; differences are paired and taken to the first policy."""
    return run.stage("evaluation", inputs={"samples": samples}, policies={policy.label: policy for policy in policies})
