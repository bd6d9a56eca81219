"""How many of the pairs that each source and selection keeps are about a colour that contradicts its prior.

    mbpo ablation --grid sources --testbed sources-soft-natural --jobs 2
    python -m benchmarks.conflicts

Counts what docs/results.md says of them; the argument is the store, ./runs if left out.
"""

from __future__ import annotations

import json
import sys

from mbpo_core.store import Store
from mbpo_core.store.runs import Run

SOURCES = ("adversarial", "noise", "diffusion", "blank")
SELECTIONS = ("none", "top", "random", "bottom")
SEEDS = range(3)


def against_the_prior(store: Store, run: Run) -> tuple[int, int]:
    """Pairs of a run on the demo scenes, and how many of them ask for a colour that contradicts the prior."""
    rows = store.reader(run.pointers()["pairs"]).rows(columns=["meta"])
    about = [json.loads(row["meta"]) for row in rows]
    return len(about), sum(one["topic"] == "color" and one["conflict"] for one in about)


def main(root: str = "runs") -> None:
    """Print a row for each source and selection, with the pairs of each seed and the others over all seeds."""
    store = Store(root)
    print("| source | kept | pairs | against the prior |\n|---|---|---:|---:|")
    for source in SOURCES:
        for kept in SELECTIONS:
            runs = [store.run(f"ablation-sources-sources-soft-natural-{seed}.{source}.{kept}") for seed in SEEDS]
            pairs, against = zip(*(against_the_prior(store, run) for run in runs), strict=True)
            print(f"| {source} | {kept} | {', '.join(map(str, pairs))} | {sum(against)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
