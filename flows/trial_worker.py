"""A process that makes trials: one JSON line on standard input a trial, one on standard output when it has ended."""

from __future__ import annotations

import json
import os
import sys

from flows.paths import use_store
from flows.prefect_environment import end_embedded_server, prefect_runtime
from mbpo_core.ablation.grid import Trial
from mbpo_core.config import PipelineConfig
from mbpo_core.launching.reaping import follow_parent


def main() -> None:
    """Make what is asked for until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is part of the log
    follow_parent(end_embedded_server)
    with prefect_runtime(use_store(None)):
        from flows.trials import attempt

        for line in sys.stdin:
            asked = json.loads(line)
            trial = Trial(asked["cell"], asked["seed"], PipelineConfig.model_validate(asked["config"]))
            print(json.dumps({"error": attempt(trial)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
