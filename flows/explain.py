"""What a run would do now, shown on a flow run; computes nothing."""

from __future__ import annotations

from prefect import flow

from flows.forms import UNNAMED, BaseName, Changes, RunName
from flows.hooks import SERVICE
from flows.paths import named_config, use_store
from mbpo_core.config import load_config
from mbpo_core.store import Store
from tasks.describe import describe_status
from tasks.notes import note_plans, note_stale


@flow(name="explain", **SERVICE)
def explain(run: RunName = UNNAMED, base: BaseName = "", changes: Changes = []) -> list[str]:  # noqa: B006
    """Show for each stage of a run whether it would run, and why.

    Args:
        run: Name of the run; left as shown, it is the one that the run config in `base` names.
        base: Name of a run config, such as demo or smoke, or of a file in the worker's folder MBPO_CONFIGS; empty for
            the settings the run was last run with.
        changes: Settings to change, as section.field=value.

    Returns:
        A line a stage.

    Raises:
        ConfigError: the run or the run config is unknown, or a change is not valid.
    """
    from flows.running import explain_run

    store = Store(use_store(None))
    config = load_config(named_config(base), changes) if base else None
    found = explain_run(store, config, None if config and run == UNNAMED else run, changes)
    note_plans(found.plans, found.run, store.root)
    note_stale(store, found.run)
    return [f"{plan.key}: {describe_status(plan)}" for plan in found.plans]
