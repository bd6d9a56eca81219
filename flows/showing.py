"""Showing what a run made: the results table, the page, the artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flows import console
from mbpo_core.errors import StoreError
from mbpo_core.evaluation.summary import combine_summaries, summary_for
from mbpo_core.evaluation.table import summary_table
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Manifest, Store

PAGE = "report.html"


def show_results(store: Store, run: str) -> None:
    """The evaluation's table, where the page is, where the artifacts are."""
    console.make_console().print(summary_table(_summary(store, run), title=f"Run {run}: held-out questions"))
    console.say(f"Report: {page_place(store, run)}")
    console.say(f"Artifacts: {store.root} (mbpo show --run {run} lists them)")


def show_seeds(store: Store, runs: Sequence[str]) -> None:
    """The mean over runs that differ in their seed, with its interval."""
    combined = combine_summaries([_summary(store, run) for run in runs])
    console.make_console().print(summary_table(combined, title=f"Mean of {len(runs)} seeds: {', '.join(runs)}"))


def show_evaluation(store: Store, run: str, *, as_json: bool, full: bool) -> None:
    """The evaluation's table, or base against the trained policy as one JSON object."""
    summary = _summary(store, run)
    if as_json:
        print(json.dumps(summary_for(summary, trained=summary["about"]["policies"][-1])))
    else:
        console.make_console().print(summary_table(summary, full=full, title=f"Run {run}: held-out questions"))


def show_artifacts(store: Store, run: str, key: str | None, *, as_json: bool) -> None:
    """Rows, dropped rows and place of one of a run's artifacts, of all rounds of a stage, or of everything."""
    made = [(ref, _manifest(store, ref)) for ref in _chosen(store, run, key)]
    if as_json:
        print(json.dumps({ref.key: _as_json(ref, manifest) for ref, manifest in made}))
        return
    console.print_artifacts([(ref.key, manifest, _place(ref, manifest)) for ref, manifest in made], run)


def page_place(store: Store, run: str) -> str:
    """Where the run's HTML page is."""
    ref = _pointer(store, run, "report")
    return _place(ref, _manifest(store, ref))


def _summary(store: Store, run: str) -> dict[str, Any]:
    return store.reader(_pointer(store, run, "evaluation")).json("summary.json")


def _place(ref: ArtifactRef, manifest: Manifest) -> str:
    """The artifact's folder; of a report, the page itself."""
    return f"{ref.uri}/{manifest.attempt}/{PAGE}" if ref.stage == "report" else f"{ref.uri}/{manifest.attempt}"


def _as_json(ref: ArtifactRef, manifest: Manifest) -> dict[str, Any]:
    known = {"rows", "dropped", "seconds", "created", "digest", "content"}
    return {"path": _place(ref, manifest), **manifest.model_dump(mode="json", include=known)}


def _manifest(store: Store, ref: ArtifactRef) -> Manifest:
    return store.reader(ref).manifest


def _chosen(store: Store, run: str, key: str | None) -> list[ArtifactRef]:
    pointers = _pointers(store, run)
    if key is None:
        return list(pointers.values())
    chosen = [ref for name, ref in pointers.items() if key in (name, name.split("/")[0])]
    return chosen or [_pointer(store, run, key)]


def _pointer(store: Store, run: str, key: str) -> ArtifactRef:
    pointers = _pointers(store, run)
    if key not in pointers:
        raise StoreError(
            f"run {run!r} has no {key!r}",
            where=store.root,
            expected=f"one of {', '.join(pointers)}",
            remedy="Check the name, or make it with mbpo run.",
        )
    return pointers[key]


def _pointers(store: Store, run: str) -> dict[str, ArtifactRef]:
    pointers = store.run(run).pointers()
    if not pointers:
        raise StoreError(
            f"run {run!r} is not known",
            where=store.root,
            expected=f"one of the store's runs ({', '.join(store.runs()) or 'none yet'})",
            remedy="Check --run and --store, or run it first.",
        )
    return pointers
