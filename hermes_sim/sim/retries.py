"""Visits that a failure threw out of an engine: each pass is sent again from its beginning, so many times at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.advance import take_back
from hermes_sim.sim.ranks import ARRIVAL, FAILURE, HAND_OFF
from hermes_sim.sim.status import FAILED, LOST, UNFINISHED
from hermes_sim.state.arrays import WATCHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

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
        self._leaving: set[int] = set()
        """Rows of passes that were taken back and are in a step in flight yet."""

    def send_again(self, rows: Sequence[int], time_s: float) -> None:
        """Rows of visits and samples that were lost now. All that failed at this time must have failed by now."""
        coordinator, lowered, state = self._coordinator, self._lowered, self._state
        availability = lowered.scenario.cluster.availability
        heads: dict[int, int] = {}
        if coordinator.hedges is not None:
            rows = coordinator.hedges.lost(rows)
        for lost in rows:
            row = int(state.row_parent[lost]) if state.row_parent[lost] >= 0 else lost
            request = int(state.row_request[row])
            plan = lowered.pipelines[lowered.request_pipeline[request]]
            heads[int(lowered.first_row[request]) + plan.pass_of(int(lowered.row_stage[row]))[0]] = request
        for row, request in sorted(heads.items()):
            if coordinator.status[request] != UNFINISHED:
                continue
            place = row - int(lowered.first_row[request])
            places = lowered.pipelines[lowered.request_pipeline[request]].pass_of(place)
            coordinator.recall.take_back(request, places, time_s, FAILURE)
            if self._left_at_s(request, places) is None:
                self._clear(request, places)
            else:
                self._leaving.update(self._inside(request, places).tolist())
            self._attempts[row] = self._attempts.get(row, 0) + 1
            if self._attempts[row] > availability.max_retries:
                coordinator.ends.end_request(request, FAILED, time_s, LOST)
            else:
                self.num_retries[request] += 1
                self._send_at(request, places, time_s + availability.detection_s)

    def is_over(self, row: int, time_s: float) -> bool:
        """Whether a visit that has just ended in an engine had been taken back: its KV is given up."""
        if row not in self._leaving:
            return False
        if self._state.row_slot[row] >= 0:
            engine = int(self._state.row_engine[row])
            take_back(self._coordinator.handle, engine, np.array([row], np.int64), time_s, HAND_OFF)
            self._coordinator.after_push(engine)
        return True

    def _send_at(self, request: int, places: Sequence[int], time_s: float) -> None:
        """Send the pass again then, or when the step in flight has ended that its last attempt is still in."""
        coordinator = self._coordinator
        row = int(self._lowered.first_row[request]) + places[0]

        def begin(at_s: float) -> None:
            self._bring_up(request, places, at_s)
            left_s = self._left_at_s(request, places)
            if left_s is not None:
                self._send_at(request, places, left_s)
                return
            self._clear(request, places)
            self._leaving.difference_update(row + place - places[0] for place in places)
            coordinator.visits.start(request, places[0], at_s, ARRIVAL)

        guarded = coordinator.attempts.guard(row, begin)
        coordinator.clock.at(time_s, ARRIVAL, lambda event: guarded(time_s), kind=RETRY, row=row)

    def _bring_up(self, request: int, places: Sequence[int], time_s: float) -> None:
        engines = {int(self._state.row_engine[row]) for row in self._inside(request, places)}
        self._coordinator.dispatch.bring_up(np.array(sorted(engines), np.int64), time_s, ARRIVAL)

    def _left_at_s(self, request: int, places: Sequence[int]) -> float | None:
        """When the step ends that still computes for a pass which was taken back; None: none does."""
        inside = self._inside(request, places)
        if len(inside) == 0:
            return None
        ends_s = self._state.lane_end_s[self._state.row_engine[inside]]
        return float(ends_s[np.isfinite(ends_s)].max())

    def _inside(self, request: int, places: Sequence[int]) -> npt.NDArray[np.int64]:
        """Rows of a pass that hold a slot of an engine."""
        first = int(self._lowered.first_row[request])
        rows = self._coordinator.recall.with_samples([first + place for place in places])
        return np.asarray(rows[self._state.row_slot[rows] >= 0])

    def _clear(self, request: int, places: Sequence[int]) -> None:
        """The rows of a pass, and of its samples, as before their first attempt; energy and engine time stay."""
        state = self._state
        stages = self._lowered.pipelines[self._lowered.request_pipeline[request]].stages
        first_row = int(self._lowered.first_row[request])
        for place in places:
            row = first_row + place
            samples, first = int(state.row_num_samples[row]), int(state.row_first_sample[row])
            of_all: npt.NDArray[np.int64] = np.append(np.arange(first, first + samples - 1), row)
            for moments in (
                state.row_arrival_s, state.row_start_s, state.row_finish_s, state.row_last_token_s,
                state.row_interrupted_s,
            ):  # fmt: skip
                moments[of_all] = np.nan
            for counts in (
                state.row_generated, state.row_swapped, state.row_cached, state.row_loaded, state.row_preemptions,
            ):  # fmt: skip
                counts[of_all] = 0
            state.row_shares[of_all, :4] = 0.0
            state.row_preempted_s[of_all] = 0.0
            state.row_held_s[of_all] = 0.0
            state.row_flags[of_all] &= np.uint8(WATCHED)
            state.row_slot[of_all] = state.row_next[of_all] = state.row_engine[of_all] = -1
            state.row_open_samples[row] = samples
            if stages[place].may_split:
                state.row_continues_as[row] = -1
