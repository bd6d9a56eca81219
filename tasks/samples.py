"""samples: read the questions, keep unusable rows aside with a reason."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef
from tasks.run import Run


def import_samples(run: Run) -> ArtifactRef:
    """Questions with reference answers, checked and normalised."""
    return run.stage("samples")
