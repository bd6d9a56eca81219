"""The stop rule: end before the chosen responses themselves become unlikely."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class StopRule:
    """Fires when log p(chosen) has fallen too far below the reference's, on average over a window of steps.

        mean over the last `window` steps of [ mean log pi(y_w) - mean log pi_ref(y_w) ] < - drop

    An offline pair is an unsaturated contrast: pushing the rejected response down can take the chosen one with
    it. A step without pairs says nothing and does not count; the rule is silent until the window is full.

    Source: recipe 1.6, monitor (iii).
    """

    def __init__(self, drop: float, window: int) -> None:
        """drop: allowed fall, nats per token, > 0; window: steps averaged over."""
        self._drop = drop
        self._drifts: deque[float] = deque(maxlen=window)

    def fires(self, chosen_drift: float | None) -> bool:
        """Take in a step's drift (nats per token; None without pairs) and say whether training must end."""
        if chosen_drift is None:
            return False
        self._drifts.append(chosen_drift)
        full = len(self._drifts) == self._drifts.maxlen
        return full and sum(self._drifts) / len(self._drifts) < -self._drop

    def replay(self, drifts: Iterable[float | None]) -> None:
        """Take in the steps of a run that is being resumed."""
        for drift in drifts:
            self.fires(drift)
