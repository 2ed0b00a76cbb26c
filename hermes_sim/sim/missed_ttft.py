"""Share of first tokens that came, or will come, too late: what an autoscaler may look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.sim.first_token import seen_prefills
from hermes_sim.sim.ranks import TIMER
from hermes_sim.sim.status import UNFINISHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class MissedTtft:
    """Over all requests whose class has a bound on TTFT that is a time."""

    def __init__(self, coordinator: Coordinator) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        loosest_s = [
            max((limit.time_s for limit in slo.ttft.values() if limit.time_s is not None), default=np.inf)
            for _, slo in lowered.scenario.workload.promises()
        ]
        self._bound_s = np.array(loosest_s)[lowered.request_class]
        self._row = np.full(lowered.requests.num_requests, -1)
        """[num_requests] the visit whose end brings the first token; -1: none does."""
        for number, plan in enumerate(lowered.pipelines):
            places = seen_prefills(plan)
            if places:
                members = np.flatnonzero(lowered.request_pipeline == number)
                self._row[members] = lowered.first_row[members] + places[0]
        self._engines = np.arange(len(lowered.replicas))

    def frac(self, since_s: float, time_s: float) -> float:
        """Of the first tokens after since_s and of those that are due by now; 0 where there are none."""
        coordinator = self._coordinator
        coordinator.dispatch.bring_up(self._engines, time_s, TIMER)
        arrived = (coordinator.arrival_s <= time_s) & (self._row >= 0) & np.isfinite(self._bound_s)
        first_s = coordinator.state.row_finish_s[self._row]
        answered = arrived & (first_s > since_s) & (first_s <= time_s)
        late = answered & (first_s - coordinator.arrival_s > self._bound_s)
        waits = arrived & np.isnan(first_s) & (coordinator.status == UNFINISHED)
        due = waits & (time_s - coordinator.arrival_s > self._bound_s)
        number = int(answered.sum() + due.sum())
        return float(late.sum() + due.sum()) / number if number else 0.0
