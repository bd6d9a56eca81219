"""Prefect's side of the accelerators: a slot of the limit `gpu:<node>`, so that the server shows who waits for whom.

The limit counts, it never says which device. That, and what holds where there is no server, is the device lease of
`mbpo_core.launching`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ConfigError
from mbpo_core.execution import StagePlan
from mbpo_core.stage import StageSpec

LEASE_S = 60.0  # a killed holder's slot returns after this long; Prefect's least


@contextmanager
def device_slots(spec: StageSpec, plan: StagePlan, log: Callable[[str], None]) -> Iterator[None]:
    """Hold as many slots as the plan takes accelerators of this node; none for a cached plan, or without a server.

    Args:
        log: told what is waited for, because Prefect waits without a word.

    Raises:
        ConfigError: the server has no such limit.
    """
    from mbpo_core.launching.devices import devices_wanted
    from mbpo_core.launching.node import node_name

    request = plan.request
    policy = PolicyConfig.model_validate(request.policy_config) if request.policy_config else None
    wanted = devices_wanted(spec.uses_policy, policy, request.launch) if plan.ref is None else 0
    if not wanted or not os.environ.get("PREFECT_API_URL"):
        yield
        return
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import concurrency

    limit = f"gpu:{node_name()}"
    log(f"{plan.key}: takes {wanted} of Prefect's limit {limit}, once that many are free")
    try:
        with concurrency(
            limit, occupy=wanted, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
        ):
            yield
    except ConcurrencySlotAcquisitionError as error:
        raise ConfigError(
            f"the Prefect server does not know the limit {limit} of this machine's accelerators",
            where=os.environ["PREFECT_API_URL"],
            remedy="Set it up with mbpo pool create.",
        ) from error
