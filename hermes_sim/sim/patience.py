"""Clients that hang up: a request whose first or last token has not come in time is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.sim.first_token import has_first_token
from hermes_sim.sim.ranks import TIMER
from hermes_sim.sim.status import LEFT, NO_END, NO_FIRST_TOKEN, UNFINISHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

HANG_UP = 1
"""Kind of a timer's event: after the looks of autoscalers at the same time."""


class PatientClients:
    """How long the client of each request waits."""

    def __init__(self, coordinator: Coordinator) -> None:
        workload = coordinator.lowered.scenario.workload
        self._coordinator = coordinator
        of_all = workload.patience
        self._of_class = [one.patience or of_all for one in workload.classes] or [of_all]

    def arrived(self, request: int, time_s: float) -> None:
        """The request has been sent: its client looks at the clock."""
        patience = self._of_class[self._coordinator.lowered.request_class[request]]
        if patience is None:
            return
        if patience.first_token_s is not None:
            self._at(time_s + patience.first_token_s, request, NO_FIRST_TOKEN)
        if patience.end_s is not None:
            self._at(time_s + patience.end_s, request, NO_END)

    def _at(self, time_s: float, request: int, reason: int) -> None:
        coordinator = self._coordinator

        def on_time(event: Any) -> None:
            if coordinator.status[request] != UNFINISHED:
                return
            if reason == NO_FIRST_TOKEN and has_first_token(coordinator, request, time_s, TIMER):
                return
            coordinator.recall.cancel(request, LEFT, reason, time_s, TIMER)

        row = int(np.int64(coordinator.lowered.first_row[request]))
        coordinator.clock.at(time_s, TIMER, on_time, kind=HANG_UP, engine=reason, row=row)
