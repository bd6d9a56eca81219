"""Showing what a run made: the results table, the page, the artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows import console
from mbpo_core.config import PolicyConfig
from mbpo_core.errors import StoreError
from mbpo_core.evaluation.summary import combine_summaries, summary_for
from mbpo_core.evaluation.table import summary_table
from mbpo_core.progress import duration
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Manifest, Store
from mbpo_core.store.lineage import PROMOTED
from mbpo_core.store.promotions import Decision, decisions
from mbpo_core.store.search import Found, find_some, runs_like
from tasks.promotion import describe_decision

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
        console.say_json(summary_for(summary, trained=summary["about"]["policies"][-1]))
    else:
        console.make_console().print(summary_table(summary, full=full, title=f"Run {run}: held-out questions"))


def show_artifacts(store: Store, run: str, what: str | None, *, as_json: bool) -> None:
    """Everything a run has as a table, or the whole story of what a word means.

    Args:
        what: a key of the run, a stage of it, or a digest prefix; None for everything.
        as_json: one object, by key (by stage where a digest was given).

    Raises:
        StoreError: the run or the word means nothing, or several digests.
    """
    if what is None:
        made = {key: store.reader(ref).manifest for key, ref in run_pointers(store, run).items()}
    else:
        made = {found.key: _found_manifest(store, found) for found in find_some(store, what, run)}
    decision = next(iter(decisions(store, run)[-1:]), None) if what and what.split("/")[0] == PROMOTED else None
    if as_json:
        told = {key: _story(store, manifest) for key, manifest in made.items()}
        console.say_json(told | ({"decision": decision.model_dump(mode="json")} if decision else {}))
    elif what is None:
        console.print_artifacts([(key, manifest, _place(store, manifest)) for key, manifest in made.items()], run)
    else:
        for key, manifest in made.items():
            _print_story(store, key, manifest)
        _print_decision(run, decision)


def page_place(store: Store, run: str) -> str:
    """Where the run's HTML page is."""
    return _place(store, store.reader(_pointer(store, run, "report")).manifest)


def _summary(store: Store, run: str) -> dict[str, Any]:
    return store.reader(_pointer(store, run, "evaluation")).json("summary.json")


def _place(store: Store, manifest: Manifest) -> str:
    """The artifact's folder; of a report, the page itself."""
    folder = f"{store.uri(manifest.stage, manifest.digest)}/{manifest.attempt}"
    return f"{folder}/{PAGE}" if manifest.stage == "report" else folder


def _story(store: Store, manifest: Manifest) -> dict[str, Any]:
    """Everything worth knowing of an artifact, as JSON values."""
    known = {
        "stage", "digest", "content", "rows", "dropped", "seconds", "accelerator_seconds", "device", "created", "by",
        "warnings", "libraries",
    }  # fmt: skip
    return {
        "path": _place(store, manifest),
        **manifest.model_dump(mode="json", include=known),
        "bytes": sum(file.size for file in manifest.stored_files()),
        "settings": changed_settings(store, manifest),
        "inputs": {name: {"key": ref.key, "digest": ref.digest} for name, ref in manifest.inputs.items()},
        "policies": {
            label: {"model": policy.folder or (policy.artifact.key if policy.artifact else ""), "digest": policy.digest}
            for label, policy in manifest.policies.items()
        },
    }


def changed_settings(store: Store, manifest: Manifest) -> dict[str, Any]:
    """The settings of an artifact that are not today's defaults, as --set would write them."""
    spec = store.stages.get(manifest.stage)
    defaults = {manifest.stage: spec.config().model_dump(mode="json") if spec else {}}
    defaults["policy"] = PolicyConfig().model_dump(mode="json")
    given = {manifest.stage: manifest.config, "policy": manifest.policy_config or {}}
    return {
        f"{section}.{name}": value
        for section, values in given.items()
        for name, value in values.items()
        if name not in defaults[section] or defaults[section][name] != value
    }


def _print_story(store: Store, key: str, manifest: Manifest) -> None:
    """One artifact, a line a fact."""
    story = _story(store, manifest)
    shown = console.table(f"{key} ({manifest.stage} {manifest.digest[:12]})", "", "")
    shown.show_header = False
    lines = {
        "rows": "\n".join(console.counted_rows(manifest)),
        "dropped": "\n".join(f"{count} {reason}" for reason, count in manifest.dropped.items()) or "none",
        "settings": "\n".join(f"{name} = {value}" for name, value in story["settings"].items()) or "all defaults",
        "inputs": "\n".join(
            f"{name}: {ref.key or ref.stage} {ref.digest[:12]}" for name, ref in manifest.inputs.items()
        ),
        "policies": "\n".join(
            f"{label}: {policy['model']} {policy['digest'][:12]}" for label, policy in story["policies"].items()
        ),
        "made": f"{manifest.created} by {manifest.by}",
        "took": f"{duration(manifest.seconds)} on {manifest.device}"
        + (f", {duration(manifest.accelerator_seconds)} of accelerators" if manifest.accelerator_seconds else ""),
        "size": console.size(story["bytes"]),
        "digest": manifest.digest,
        "content": manifest.content,
        "notes": "\n".join(manifest.warnings),
    }
    for name, text in lines.items():
        if text:
            shown.add_row(name, console.plain(text))
    console.make_console().print(shown)
    console.say(f"{key}: {story['path']}")


def _print_decision(run: str, decision: Decision | None) -> None:
    """What the promotion gate said last."""
    if decision is not None:
        from rich.markdown import Markdown

        console.make_console().print(Markdown(console.plain(describe_decision(run, decision)).plain))


def _found_manifest(store: Store, found: Found) -> Manifest:
    uri = store.uri(found.stage, found.digest)
    return store.reader(ArtifactRef(stage=found.stage, digest=found.digest, content="", uri=uri)).manifest


def _pointer(store: Store, run: str, key: str) -> ArtifactRef:
    pointers = run_pointers(store, run)
    if key not in pointers:
        raise StoreError(
            f"run {run!r} has no {key!r}",
            where=store.root,
            expected=f"one of {', '.join(pointers)}",
            remedy="Check the name, or make it with mbpo run.",
        )
    return pointers[key]


def run_pointers(store: Store, run: str) -> dict[str, ArtifactRef]:
    """What a run's keys name.

    Raises:
        StoreError: there is no such run.
    """
    pointers = store.run(run).pointers()
    if not pointers:
        raise StoreError(
            f"run {run!r} is not known",
            where=store.root,
            expected=f"one of the store's runs ({runs_like(store, run)})",
            remedy="Check --run and --store, or run it first.",
        )
    return pointers
