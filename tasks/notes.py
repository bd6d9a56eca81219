"""What a flow run's page shows: the plan, what each stage made, where it lies, why it failed.

A note is for people. Where one cannot be written, the log says so and the work goes on.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from urllib.parse import urlencode

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from mbpo_core.errors import MbpoError
from mbpo_core.execution import StagePlan
from mbpo_core.markdown import fenced
from mbpo_core.stage import ArtifactRef, Reader
from mbpo_core.store import Manifest, Store
from mbpo_core.store.gc import Garbage
from mbpo_core.store.lineage import readable_manifest, stale
from tasks.describe import describe_plans, describe_stage, describe_stale
from tasks.markdown import page_key

PAGE = "report.html"
SECTIONS = {
    "samples": "funnel",
    "negatives": "negatives",
    "negatives/images": "images",
    "pairs": "pairs",
    "rollouts": "rollouts",
    "training": "training",
    "evaluation": "results",
}
"""Where the report shows a stage, by run key without its round; ids of the page's sections."""

_LAST_LINES = 50
_log = logging.getLogger(__name__)
P = ParamSpec("P")


def best_effort(write: Callable[P, None]) -> Callable[P, None]:
    """A note that never fails the work it is about."""

    @wraps(write)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            write(*args, **kwargs)
        except Exception as error:  # a server that is away, or data that cannot be read
            _log.warning("%s could not be written: %s", write.__name__, error)

    return attempt


@best_effort
def note_plans(plans: Sequence[StagePlan], run: str, root: str) -> None:
    """What is about to happen, and why."""
    what = ", ".join(f"{count} {status}" for status, count in Counter(plan.status for plan in plans).items())
    text = describe_plans(plans, f"Run {run} in {root}")
    create_markdown_artifact(text, key=page_key("plan"), description=f"Plan: {what}")


@best_effort
def note_stage(store: Store, plan: StagePlan, ref: ArtifactRef, run: str) -> None:
    """What a stage made: why, rows, dropped rows, rewards, and where to look."""
    reader = store.reader(ref)
    manifest: Manifest = reader.manifest
    text = describe_stage(plan, manifest)
    create_markdown_artifact(text, key=page_key(plan.key), description=f"{plan.key}: {plan.status}")
    for name, rows in _tables(reader, manifest, store.stages[plan.stage].reasons):
        if rows:
            create_table_artifact(rows, key=page_key(plan.key, name), description=f"{plan.key}: {name}")
    link, where = as_link(f"{ref.uri}/manifest.json"), f"{plan.key}: {ref.uri}"
    create_link_artifact(link, "manifest", key=page_key(plan.key, "manifest"), description=where)
    _link_report(store, plan.key, ref, run)
    _link_form(plan, manifest, run)


@best_effort
def note_stale(store: Store, run: str) -> None:
    """What a rerun has left behind, and how to mend it."""
    found = stale(store, run)
    keys = ", ".join(entry.key for entry in found) or "nothing"
    create_markdown_artifact(describe_stale(found, run), key=page_key("stale"), description=f"Stale now: {keys}")


@best_effort
def note_failure(plan: StagePlan, error: MbpoError) -> None:
    """The error's last lines; those of a worker process are the last of its log."""
    lines = "\n".join(str(error).splitlines()[-_LAST_LINES:])
    text = f"### {plan.key} failed\n\n{fenced(lines)}"
    create_markdown_artifact(text, key=page_key(plan.key, "failure"), description=f"{plan.key} failed")


@best_effort
def note_garbage(found: Sequence[Garbage]) -> None:
    """What no run needs, and whether it is gone now."""
    rows = [
        {
            "path": entry.path,
            "reason": entry.reason,
            "MB": round(entry.bytes / 1e6, 1),
            "deleted": "yes" if entry.deleted else "no",
        }
        for entry in found
    ]
    gone = [entry for entry in found if entry.deleted]
    total = sum(entry.bytes for entry in found) / 1e6
    text = f"{len(found)} that no run needs, {total:.1f} MB; {len(gone)} deleted"
    create_table_artifact(rows or [{"path": "nothing"}], key=page_key("gc"), description=text)


def as_link(place: str) -> str:
    """A URL for a place in a store: a path as file:, a URL as it is."""
    return place if "://" in place else Path(place).as_uri()


def reward_rows(reader: Reader) -> list[dict[str, Any]]:
    """Mean reward and verdicts of rollouts, a row a question kind."""
    groups: Counter[str] = Counter()
    rewards: dict[str, list[float]] = defaultdict(list)
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    for group in reader.rows(columns=["question_kind", "completions"]):
        kind = group["question_kind"]
        groups[kind] += 1
        rewards[kind] += [completion["reward"] for completion in group["completions"]]
        verdicts[kind].update(completion["verdict"] for completion in group["completions"])
    words = sorted({verdict for counted in verdicts.values() for verdict in counted})
    return [
        {"question kind": kind, "groups": groups[kind], "completions": len(rewards[kind])}
        | {"mean reward": round(sum(rewards[kind]) / max(1, len(rewards[kind])), 4)}
        | {word: verdicts[kind][word] for word in words}
        for kind in sorted(groups)
    ]


def _tables(reader: Reader, manifest: Manifest, reasons: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    yield "rows", [{"table": name, "rows": count} for name, count in manifest.rows.items()]
    yield (
        "dropped",
        [{"reason": word, "rows": count, "why": reasons.get(word, "")} for word, count in manifest.dropped.items()],
    )
    if manifest.stage == "rollouts" and manifest.rows:
        yield "rewards", reward_rows(reader)


def _link_report(store: Store, key: str, made: ArtifactRef, run: str) -> None:
    """The stage's part of the run's page, as it was written last; nothing where none has been written."""
    ref = made if key == "report" else store.run(run).get("report")
    manifest = readable_manifest(store, ref.stage, ref.digest) if ref else None
    if ref is None or manifest is None:
        text = f"{key}: run {run} has no report yet; `mbpo report --run {run}` writes one."
        create_markdown_artifact(text, key=page_key(key, "report"), description="No report yet")
        return
    stage, *parts = key.split("/")
    section = SECTIONS.get("negatives/images" if "images" in parts else stage, "")
    link = as_link(f"{ref.uri}/{manifest.attempt}/{PAGE}") + (f"#{section}" if section else "")
    described = f"{key} in the report of {manifest.created}"
    create_link_artifact(link, f"report: {section or 'page'}", key=page_key(key, "report"), description=described)


@best_effort
def _link_form(plan: StagePlan, manifest: Manifest, run: str) -> None:
    """The stage's form, filled in as this artifact was made: change a field there and run it."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import get_current_settings

    page = get_current_settings().ui_url
    if not page:  # the embedded server has no pages
        return
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"{plan.stage}/manual")
        except ObjectNotFound:
            return
    parameters = {"run": run, "fields": "all", "settings": manifest.config, **_place(plan)}
    link = f"{page}/v2/deployments/deployment/{deployment.id}/run?{urlencode({'parameters': json.dumps(parameters)})}"
    create_link_artifact(
        link, f"{plan.key} again", key=page_key(plan.key, "again"), description=f"Rerun {plan.key} with a field changed"
    )


def _place(plan: StagePlan) -> dict[str, Any]:
    """The parameters that name one of a stage's artifacts of a run, besides the run."""
    part = plan.key.partition("/")[2]
    if plan.stage in ("rollouts", "training"):
        return {"round_index": int(part)} if part.isdigit() else {"target": part}
    return {"images": True} if part.startswith("images") else {}
