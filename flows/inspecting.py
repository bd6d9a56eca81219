"""Looking into a store: which runs there are, where things come from, whether they are intact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field
from rich.tree import Tree

from flows import console
from flows.showing import run_pointers
from mbpo_core.config import build_config
from mbpo_core.errors import ConfigError, MbpoError, StoreError
from mbpo_core.progress import BarProgress, make_progress
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import PROMOTED, Address, Step, published, reachable, readable_manifest, stale, trace
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.promotions import decisions
from mbpo_core.store.rows import Followed, follow_row
from mbpo_core.store.search import find, find_some
from mbpo_core.store.verify import Verification, verify
from tasks.run import pointer_keys

_GONE = "gone from the store"


class RunLine(BaseModel):
    """One run of the store."""

    run: str
    changed: str | None = Field(default=None, description="When a pointer moved last, UTC.")
    done: int = Field(default=0, description="Keys whose artifact is there, of those that the settings ask for.")
    expected: int | None = Field(default=None, description="Keys that the settings ask for; null if they are unknown.")
    stale: list[str] = Field(default_factory=list)
    promoted: str | None = Field(default=None, description="Digest of the promoted checkpoint.")
    refused: str | None = Field(default=None, description="Why the newest evaluated checkpoint is not promoted.")
    bytes: int = Field(default=0, description="What it needs; runs share artifacts.")
    problem: str | None = None


def show_runs(store: Store, *, as_json: bool) -> None:
    """Every run of the store, the one worked on last first."""
    lines = sorted((_run_line(store, run) for run in store.runs()), key=lambda line: line.changed or "", reverse=True)
    if as_json:
        console.say_json({"store": store.root, "runs": [line.model_dump(mode="json") for line in lines]})
        return
    shown = console.table(
        f"Runs in {store.root}", "run", "last change", "stages", "stale", "promoted", "size", right=("stages", "size")
    )
    for line in lines:
        stages = f"{line.done}" + (f" of {line.expected}" if line.expected is not None else "")
        last = line.problem or line.changed or "never"
        promoted = line.promoted[:12] if line.promoted else "no"
        promoted += f"\nnewest refused: {line.refused}" if line.refused else ""
        cells = (line.run, last, stages, ", ".join(line.stale) or "none", promoted, console.size(line.bytes))
        shown.add_row(*map(console.plain, cells))
    if lines:
        console.make_console().print(shown)
    else:
        console.say(f"There is no run in {store.root} yet. Make one with mbpo run --config demo.")


def show_trace(store: Store, what: str, run: str, *, as_json: bool) -> None:
    """The way back from artifacts to the input; or, where the word names none, a row's way through the run.

    Raises:
        StoreError: no artifact and no row of the run is called so, or several digests begin so.
    """
    found = find(store, what, run)
    if not found:
        _show_row(store, what, run, as_json=as_json)
        return
    traces = {
        entry.key: trace(
            store, ArtifactRef(stage=entry.stage, key=entry.key, digest=entry.digest, content="", uri=""), once=True
        )
        for entry in found
    }
    if as_json:
        told = {key: [_step(store, step) for step in steps] for key, steps in traces.items()}
        console.say_json({"what": what, "run": run, "traces": told})
        return
    for steps in traces.values():
        console.make_console().print(_tree(store, steps))


def show_verification(store: Store, what: str | None, run: str | None, *, as_json: bool) -> None:
    """Read every byte of an artifact, of a run, or of the whole store again; exit code 1 if something is wrong.

    Raises:
        StoreError: the word or the run means nothing.
    """
    progress = make_progress()
    addresses, runs = _chosen(store, what, run)
    try:
        result = verify(store, progress, addresses=addresses, runs=runs)
    finally:
        if isinstance(progress, BarProgress):
            progress.stop()
    if as_json:
        console.say_json(result.model_dump(mode="json"))
    else:
        _print_verification(result)
    if not result.intact:
        raise SystemExit(1)


def _run_line(store: Store, run: str) -> RunLine:
    try:
        document = store.run(run).document()
        pointers = document.pointers
        made = [key for key, at in pointers.items() if store.is_committed(at.ref.stage, at.ref.digest)]
        gone = [key for key in pointers if key not in made]
        expected, told = _expected(document.config, run), decisions(store, run)
        return RunLine(
            run=run,
            changed=max((move.time for move in document.history), default=None),
            done=sum(not published(key) if expected is None else key in expected for key in made),
            expected=None if expected is None else len(expected),
            stale=[entry.key for entry in stale(store, run)],
            promoted=pointers[PROMOTED].ref.digest if PROMOTED in pointers else None,
            refused=told[-1].reason if told and not told[-1].promotes else None,
            bytes=_bytes(store, reachable(store, [run])),
            problem=f"{_GONE}: {', '.join(gone)}" if gone else None,
        )
    except MbpoError as error:
        return RunLine(run=run, problem=error.what)


def _expected(config: Mapping[str, Any] | None, run: str) -> Sequence[str] | None:
    """The keys that a run with these settings has; None where they are not recorded, or not valid any more."""
    if config is None:
        return None
    try:
        return pointer_keys(build_config(dict(config), [], where=f"settings of run {run}"))
    except ConfigError:
        return None


def _bytes(store: Store, addresses: Iterable[Address]) -> int:
    manifests = (readable_manifest(store, *address) for address in addresses)
    return sum(file.size for manifest in manifests if manifest for file in manifest.stored_files())


def _step(store: Store, step: Step) -> dict[str, Any]:
    manifest = readable_manifest(store, step.ref.stage, step.ref.digest)
    told = {"depth": step.depth, "name": step.name, "key": step.ref.key or step.ref.stage, "stage": step.ref.stage}
    told |= {"digest": step.ref.digest, "there": step.there, "again": step.again}
    if manifest is None:
        return told
    return told | {"created": manifest.created, "rows": manifest.rows, "outside": _outside(manifest)}


def _outside(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What an artifact was made from that does not lie in the store: models, and input files."""
    models = {
        label: {"path": policy.folder, "digest": policy.digest}
        for label, policy in manifest.policies.items()
        if policy.folder
    }
    files = {
        name: {"path": manifest.config.get(name), **listed}
        for name, listed in manifest.identity.get("external", {}).items()
    }
    return models | files


def _told(name: str, outside: Mapping[str, Any]) -> str:
    """ "path /data/rows: 3 files, 1.2 MB, 3f0a9c12b7de"."""
    if "files" not in outside:
        return f"model {name} {outside['path']}: {outside['digest'][:12]}"
    path = outside["path"] or "beside the input"
    return f"{name} {path}: {outside['files']} files, {console.size(outside['bytes'])}, {outside['sha256'][:12]}"


def _tree(store: Store, steps: list[Step]) -> Tree:
    """An artifact, below it what it read, and below that what lies outside the store."""
    branches: list[Tree] = []
    for step in steps:
        manifest = readable_manifest(store, step.ref.stage, step.ref.digest)
        key = step.ref.key or step.ref.stage
        name = key if step.name == key else f"{step.name}: {key}"
        tail = ", ".join([f"made {manifest.created}", *console.counted_rows(manifest)]) if manifest else _GONE
        label = console.plain(f"{name} {step.ref.digest[:12]} {'(see above)' if step.again else tail}")
        del branches[step.depth :]
        branches.append(branches[-1].add(label) if branches else Tree(label))
        if manifest and not step.again:
            for outside, facts in _outside(manifest).items():
                branches[-1].add(console.plain(_told(outside, facts), "dim"))
    return branches[0]


def _show_row(store: Store, sample_id: str, run: str, *, as_json: bool) -> None:
    run_pointers(store, run)
    followed = follow_row(store, run, sample_id)
    if not followed.sightings:
        looked = ", ".join(f"{key} ({rows} rows)" for key, rows in followed.looked.items())
        raise StoreError(
            f"there is no artifact and no row {sample_id!r}",
            where=f"{store.root}, run {run}",
            expected=f"a key of the run, six or more digits of a digest, or a sample_id; looked through {looked}",
            remedy="Check the id and --run.",
        )
    if as_json:
        console.say_json({"what": sample_id, **followed.model_dump(mode="json")})
    else:
        _print_row(followed)


def _print_row(followed: Followed) -> None:
    tree = Tree(console.plain(f"{followed.sample_id} in run {followed.run}", "bold"))
    for seen in followed.sightings:
        table = "" if seen.table == "part" else f", {seen.table}"
        branch = tree.add(console.plain(f"{seen.key}{table} ({seen.digest[:12]})"))
        for name, value in seen.row.items():
            if name == "completions":
                answers = branch.add(name)
                for given in value:
                    answers.add(console.plain(f"{given['text']} ({given['verdict']}, reward {given['reward']:g})"))
            else:
                branch.add(console.plain(f"{name}: {value}"))
    for key, why in followed.unread.items():
        tree.add(console.plain(f"{key} cannot be read: {why}", "red"))
    if followed.absent:
        tree.add(console.plain(f"not in {', '.join(followed.absent)}", "dim"))
    console.make_console().print(tree)


def _chosen(store: Store, what: str | None, run: str | None) -> tuple[list[Address] | None, list[str]]:
    """Which artifacts are verified (None: all), and which runs' pointers are followed."""
    if what is not None:
        return [(found.stage, found.digest) for found in find_some(store, what, run)], []
    if run is None:
        return None, store.runs()
    run_pointers(store, run)
    return sorted(reachable(store, [run])), [run]


def _print_verification(result: Verification) -> None:
    for problem in result.problems:
        console.say(f"{problem.kind}: {problem.where}: {problem.what}. {problem.remedy}")
    looked = f"{result.artifacts} artifacts, {result.files} files, {console.size(result.bytes)} read"
    unfinished = f", {result.unfinished} unfinished artifacts left out" if result.unfinished else ""
    console.say(f"{looked}{unfinished}: {len(result.problems) or 'no'} problems.")
