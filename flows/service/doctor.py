"""`mbpo doctor`: is everything there that a run needs, and what to do about what is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from flows.console import make_console, say
from flows.prefect_environment import prepare_prefect
from flows.service.check import Check
from mbpo_core.errors import MbpoError

_COLORS = {"ok": "green", "warning": "yellow", "wrong": "red"}


def examine(store: str, *, as_json: bool) -> None:
    """Look at everything and print what was found.

    Args:
        store: store root.
        as_json: print one object {"ok": ..., "checks": [...]} instead of a table.

    Raises:
        SystemExit: with code 1, something is wrong.
    """
    prepare_prefect(store)
    checks = list(look(store))
    wrong = [check for check in checks if check.status == "wrong"]
    if as_json:
        say(json.dumps({"ok": not wrong, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        _print(checks)
    if wrong:
        raise SystemExit(1)


def look(store: str) -> Iterator[Check]:
    """Every check; one that cannot be carried out is itself wrong."""
    from flows.service import doctor_machine, doctor_server

    groups: dict[str, Callable[[], Iterator[Check]]] = {
        "packages": doctor_machine.look_at_packages,
        "accelerators": doctor_machine.look_at_accelerators,
        "store": lambda: doctor_machine.look_at_store(store),
        "server": lambda: doctor_server.look_at_server(os.environ.get("PREFECT_API_URL", "")),
    }
    for name, group in groups.items():
        try:
            yield from group()
        except MbpoError as error:
            found = f"{error.what} ({error.where})" if error.where else error.what
            yield Check(name, "wrong", found, error.remedy)
        except Exception as error:
            # The next group is looked at all the same.
            yield Check(name, "wrong", f"{type(error).__name__}: {error}", "Run mbpo --debug doctor for the traceback.")


def _print(checks: list[Check]) -> None:
    table = Table(show_edge=False)
    for heading in ("", "what", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = f"[{_COLORS[check.status]}]{check.status}[/]"
        table.add_row(mark, escape(check.name), escape(check.found), escape(check.remedy))
    make_console().print(table)
    found = {status: sum(check.status == status for check in checks) for status in ("wrong", "warning")}
    said = [f"{found['wrong']} wrong"] if found["wrong"] else []
    said += [f"{found['warning']} warning{'s' if found['warning'] > 1 else ''}"] if found["warning"] else []
    say(", ".join(said) or "All is well.")
