"""A pass of a request is taken back wherever it is: at tokenisers, between stores and engines, in lines, in engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.advance import take_back

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

IntArray = npt.NDArray[np.int64]


class Recall:
    """Ends attempts at passes and jobs: what they hold is free again, and what is on its way for them is void."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._lowered = coordinator.lowered
        self._state = coordinator.state

    def take_back(self, request: int, places: Sequence[int], time_s: float, rank: int) -> None:
        """One pass (its places in order), or one job, ends its attempt now; its numbers stay as they are."""
        coordinator, state = self._coordinator, self._state
        first = int(self._lowered.first_row[request])
        rows = [first + place for place in places]
        coordinator.attempts.end(rows)
        coordinator.dispatch.forget(rows)
        holding = coordinator.hand_over.forget(rows)
        if coordinator.retrievals is not None:
            coordinator.retrievals.forget(rows)
        engines = {int(state.row_engine[row]) for row in rows if self._may_be_inside(row)} | holding
        everyone = self.with_samples(rows)
        for e in sorted(engines):
            if coordinator.fleet is not None and coordinator.fleet.has_failed(e):
                continue  # it has thrown everybody out
            there = everyone[(state.row_engine[everyone] == e) | (state.row_engine[everyone] < 0)]
            take_back(coordinator.handle, e, there, time_s, rank)
            coordinator.after_push(e)

    def cancel(self, request: int, status: int, reason: int, time_s: float, rank: int) -> None:
        """Nobody wants the request any more: all its passes and jobs are taken back, and it has ended."""
        plan = self._lowered.pipelines[self._lowered.request_pipeline[request]]
        first = int(self._lowered.first_row[request])
        done: set[int] = set()
        self._coordinator.ends.end_request(request, status, time_s, reason)
        for place in range(len(plan.stages)):
            if place in done or self._lowered.skipped[first + place]:
                continue
            places = plan.pass_of(place)
            done.update(places)
            self.take_back(request, places, time_s, rank)
            if self._coordinator.hedges is not None:
                self._coordinator.hedges.forget([first + one for one in places], time_s, rank)

    def _may_be_inside(self, row: int) -> bool:
        """Whether an engine was chosen for the visit and it has not ended there, or has left its KV there."""
        state = self._state
        if state.row_engine[row] < 0:
            return False
        return bool(np.isnan(state.row_finish_s[row]) or state.row_slot[row] >= 0 or state.row_open_samples[row] > 0)

    def with_samples(self, rows: Sequence[int]) -> IntArray:
        """The rows of visits, and those of their samples."""
        state = self._state
        found = list(rows)
        for row in rows:
            first = int(state.row_first_sample[row])
            found += range(first, first + int(state.row_num_samples[row]) - 1)
        return np.array(found, np.int64)
