"""Visits that a failure threw out of an engine: each pass is sent again from its prompt, so many times at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.sim.status import FAILED
from hermes_sim.state.arrays import WATCHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

IntArray = npt.NDArray[np.int64]

RETRY = 2
"""Kind of the event that sends a lost visit again."""


class Retries:
    """How often each pass and each job of a run was begun anew."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._lowered = coordinator.lowered
        self._state = coordinator.state
        self.num_retries = np.zeros(self._lowered.requests.num_requests, np.int64)
        self._attempts: dict[int, int] = {}

    def send_again(self, rows: IntArray, time_s: float) -> None:
        """Rows of visits and samples that were lost now."""
        lowered, state = self._lowered, self._state
        availability = lowered.scenario.cluster.availability
        heads: dict[int, int] = {}
        for lost in rows.tolist():
            row = int(state.row_parent[lost]) if state.row_parent[lost] >= 0 else lost
            request = int(state.row_request[row])
            plan = lowered.pipelines[lowered.request_pipeline[request]]
            heads[int(lowered.first_row[request]) + plan.head_of(int(lowered.row_stage[row]))] = request
        for row, request in sorted(heads.items()):
            self._clear(request, row)
            self._attempts[row] = self._attempts.get(row, 0) + 1
            if self._attempts[row] > availability.max_retries:
                self._coordinator.ends.end_request(request, FAILED, time_s)
            else:
                self.num_retries[request] += 1
                self._send_at(request, row, time_s + availability.detection_s)

    def _send_at(self, request: int, row: int, time_s: float) -> None:
        place = int(self._lowered.row_stage[row])

        def on_time(event: Any) -> None:
            self._coordinator.visits.start(request, place, time_s, ARRIVAL)

        self._coordinator.clock.at(time_s, ARRIVAL, on_time, kind=RETRY, row=row)

    def _clear(self, request: int, head_row: int) -> None:
        """The rows of a pass, and of its samples, as before their first attempt; energy and engine time stay."""
        state = self._state
        stages = self._lowered.pipelines[self._lowered.request_pipeline[request]].stages
        first_row = int(self._lowered.first_row[request])
        place: int | None = head_row - first_row
        while place is not None:
            row = first_row + place
            samples, first = int(state.row_num_samples[row]), int(state.row_first_sample[row])
            of_all = np.append(np.arange(first, first + samples - 1), row)
            for moments in (
                state.row_arrival_s, state.row_start_s, state.row_finish_s, state.row_last_token_s,
                state.row_interrupted_s,
            ):  # fmt: skip
                moments[of_all] = np.nan
            for counts in (state.row_generated, state.row_swapped, state.row_cached, state.row_preemptions):
                counts[of_all] = 0
            state.row_shares[of_all, :4] = 0.0
            state.row_preempted_s[of_all] = 0.0
            state.row_flags[of_all] &= np.uint8(WATCHED)
            state.row_slot[of_all] = state.row_next[of_all] = -1
            state.row_open_samples[row] = samples
            stage = stages[place]
            place = stage.decode if stage.decode is not None else stage.more_decode
