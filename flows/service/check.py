"""What a look of `mbpo doctor` at one thing found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "wrong"]

CLOCK_S = 30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: `warning` is worth knowing, with `wrong` runs fail.
        found: what was seen.
        remedy: what to do now; empty if nothing is to be done.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def compare_clock(name: str, ahead_s: float) -> Check:
    """Leases and heartbeats expire by the clock: machines that work together must agree on it.

    Args:
        name: whose clock it is.
        ahead_s: seconds that it is ahead of this machine's.
    """
    if abs(ahead_s) < CLOCK_S:
        return Check(name, "ok", "agrees with this machine's")
    return Check(name, "wrong", f"{ahead_s:+.0f} s from this machine's", "Synchronise both clocks (NTP).")
