"""report: everything a run made, on one page."""

from __future__ import annotations

from collections.abc import Mapping

from mbpo_core.stage import ArtifactRef
from tasks.run import Run


def write_report(run: Run, made: Mapping[str, ArtifactRef]) -> ArtifactRef:
    """One self-contained HTML file from whatever there is, by run pointer."""
    return run.stage("report", inputs={key: ref for key, ref in made.items() if key != "report"})
