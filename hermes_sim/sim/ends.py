"""Visits and requests end: what waited for them starts, and whoever sent the request is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.plain import plain
from hermes_sim.sim.plans import StagePlan
from hermes_sim.sim.status import AT_THE_DOOR, FINISHED, NO_REASON, REJECTED, TOO_LONG, UNFINISHED
from hermes_sim.sim.stuck import refuse_waiting

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class Ends:
    """Hands every visit on, and closes every request."""

    def __init__(self, coordinator: Coordinator) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._lowered = lowered
        self._state = coordinator.state
        self._first_row, self._pipeline_of = plain(lowered.first_row), plain(lowered.request_pipeline)
        self._skipped = plain(lowered.skipped)
        self._status = plain(coordinator.status)
        self._pending = pending_predecessors(lowered)
        self._open_ends = np.array([len(plan.terminals) for plan in lowered.pipelines])[lowered.request_pipeline]
        self._ended_rows: set[int] | None = set() if coordinator.lowered.scenario.follows_requests else None
        """Rows whose end has been handed on: kept where a visit may end twice."""
        self.reason = np.zeros(lowered.requests.num_requests, np.int8)
        """[num_requests] of sim/status.py: why a request was not finished."""
        self.num_open = lowered.requests.num_requests
        """Requests that have not ended."""

    def end_visit(self, request: int, place: int, time_s: float, rank: int) -> None:
        """Start what waited for this visit; the request ends with its last one."""
        coordinator = self._coordinator
        plan = self._lowered.pipelines[self._pipeline_of[request]]
        stage = plan.stages[place]
        first = self._first_row[request]
        if self._ended_rows is not None:
            if first + place in self._ended_rows:
                self._go_on(request, stage, first, place, time_s, rank)
                return
            self._ended_rows.add(first + place)
        if stage.written_by is not None and not self._skipped[first + place] and self._status[request] == UNFINISHED:
            assert coordinator.retrievals is not None
            coordinator.retrievals.write(stage, place, first + place, time_s)
        if not stage.successors:
            self._open_ends[request] -= 1
            if self._open_ends[request] == 0:
                self.end_request(request, FINISHED, time_s + self._last_message_s(stage, first + place))
            return
        for successor in stage.successors:
            row = first + successor
            takes_over = successor in (stage.decode, stage.more_decode)
            joined = takes_over and self._state.row_continues_as[first + place] == row
            if joined and not self._skipped[row]:
                continue
            self._pending[row] -= 1
            if self._pending[row] > 0:
                continue
            self._start(request, stage, first + place, row, time_s, rank)

    def _start(self, request: int, stage: StagePlan, row: int, after: int, time_s: float, rank: int) -> None:
        """A visit is next after `row`: its decode elsewhere, the prefill for which KV was retrieved, or any other."""
        coordinator = self._coordinator
        place = after - self._first_row[request]
        if place == stage.decode and not self._skipped[row]:
            coordinator.hand_over.start_decode(request, row, place, time_s)
        elif place == stage.prefill and (engine := self._chosen_engine(after)) is not None:
            coordinator.visits.push(engine, int(self._state.first_queue[engine]), after, time_s, rank)
        else:
            coordinator.visits.start(request, place, time_s, rank)

    def _go_on(self, request: int, stage: StagePlan, first: int, place: int, time_s: float, rank: int) -> None:
        """A visit has ended again, after a failure: what waited for it has begun, but the rest of its own pass is
        begun anew with it."""
        following = stage.decode if stage.decode is not None else stage.prefill
        if following is None or self._status[request] != UNFINISHED:
            return
        if self._state.row_continues_as[first + place] != first + following:
            self._start(request, stage, first + place, first + following, time_s, rank)

    def _chosen_engine(self, row: int) -> int | None:
        """Of a prefill behind a KV retrieval that the request passed through."""
        retrievals = self._coordinator.retrievals
        return None if retrievals is None else retrievals.engine_of(row)

    def _last_message_s(self, stage: StagePlan, row: int) -> float:
        """From the end of a last visit to the client who waits for it."""
        engine = int(self._state.row_engine[row])
        if stage.stage.runs_on == "jobs" or engine < 0:
            return 0.0
        return float(self._coordinator.front_end.detokenize_s[engine])

    def reject(self, request: int, time_s: float) -> None:
        """No engine can ever hold the request."""
        self.end_request(request, REJECTED, time_s, TOO_LONG)

    def end_request(self, request: int, status: int, time_s: float, reason: int = NO_REASON) -> None:
        """The request is out; whoever waited for its end sends the next."""
        if self._status[request] == UNFINISHED:
            self._status[request] = status
            self.reason[request] = reason
            self.num_open -= 1
            if self._coordinator.front_door is not None and reason not in AT_THE_DOOR:
                self._coordinator.front_door.ended()
            self._coordinator.traffic.ended(request, time_s)

    def close(self) -> None:
        """Requests whose visits have all ended are finished, watched or not; all others must have been rejected."""
        lowered, status = self._lowered, self._coordinator.status
        number = lowered.num_visits
        if number == 0:
            return
        ended = ~np.isnan(self._state.row_finish_s[:number]) | lowered.skipped
        complete = np.logical_and.reduceat(ended, lowered.first_row[:-1])
        status[complete & (status == UNFINISHED)] = FINISHED
        refuse_waiting(lowered, np.flatnonzero(status == UNFINISHED), ended)


def pending_predecessors(lowered: Lowered) -> np.ndarray[Any, Any]:
    """[num_visits] stages that must end before the visit can start."""
    pending = np.zeros(lowered.num_visits, np.int8)
    for number, plan in enumerate(lowered.pipelines):
        members = np.flatnonzero(lowered.request_pipeline == number)
        for place, stage in enumerate(plan.stages):
            pending[lowered.first_row[members] + place] = len(stage.predecessors)
    return pending
