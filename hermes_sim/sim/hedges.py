"""Hedged visits: a copy goes to a second engine when the first has not answered in time; the slower one is taken back.

A copy has rows of its own. When it is first, the two change places: the copy's rows take the visit's numbers, and the
other way round, so that all that follows knows one row for each visit. Steps that the slower one was in have cost what
they cost: their energy is shared by all requests of its engine.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.routing.hedge import Hedge
from hermes_sim.sim.advance import take_back
from hermes_sim.sim.plans import StagePlan
from hermes_sim.sim.ranks import HAND_OFF, TIMER
from hermes_sim.sim.status import UNFINISHED
from hermes_sim.state.arrays import FIELDS, HOLDS_KV, WATCHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

SEND_AGAIN = 2
"""Kind of a timer's event: after autoscalers and clients at the same time."""
FEWEST_ANSWERS = 20
"""Before so many visits to a stage were answered, a percentile of them says nothing."""
ROW_FIELDS = tuple(name for name, (_, dimensions, _) in FIELDS.items() if dimensions[0] == "rows")


class Hedges:
    """All copies of a run. Only made where a stage is hedged."""

    def __init__(self, coordinator: Coordinator) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._lowered = lowered
        self._state = coordinator.state
        self._base = lowered.num_visits + len(lowered.row_parent)
        self._copies: dict[int, list[int]] = {}
        """First row of a pass (or the row of a job) that has a copy -> all of its rows."""
        self._overtaken: set[int] = set()
        """Visits that ended at the same time as their copy, whose end was heard of first."""
        self._started_s: dict[int, float] = {}
        self._answered_s: dict[int, list[float]] = {}
        """Stage, by the number of its plan -> how long its answers took, in order of size."""
        self.num_hedges = np.zeros(lowered.requests.num_requests, np.int64)
        """[num_requests] copies that were sent."""

    def is_copy(self, row: int) -> bool:
        """Whether a row stands for a copy."""
        return row >= self._base

    # ----- sending

    def pushed(self, request: int, plan: StagePlan, place: int, engine: int, row: int, time_s: float) -> None:
        """A visit has joined the line of an engine: when will it be sent again?"""
        assert plan.hedge is not None
        self._started_s[row] = time_s
        after_s = self._after_s(plan.hedge, id(plan))
        if after_s is None:
            return
        at_s = time_s + after_s
        coordinator = self._coordinator
        send = coordinator.attempts.guard(row, lambda now_s: self._send(request, plan, place, engine, row, now_s))
        coordinator.clock.at(at_s, TIMER, lambda event: send(at_s), kind=SEND_AGAIN, engine=engine, row=row)

    def _after_s(self, hedge: Hedge, stage: int) -> float | None:
        """None: not enough is known yet."""
        if hedge.after_s is not None:
            return hedge.after_s
        answered_s = self._answered_s.get(stage, [])
        if len(answered_s) < FEWEST_ANSWERS:
            return None
        assert hedge.after_percentile is not None
        return answered_s[min(int(len(answered_s) * hedge.after_percentile / 100.0), len(answered_s) - 1)]

    def _send(self, request: int, plan: StagePlan, place: int, engine: int, row: int, time_s: float) -> None:
        """No answer yet: a copy goes to another engine, if there is one that can take it."""
        coordinator, state = self._coordinator, self._state
        if coordinator.status[request] != UNFINISHED or np.isfinite(state.row_finish_s[row]) or row in self._copies:
            return
        if state.row_slot[self._base + row] >= 0:  # an earlier one has not left yet
            return
        second = coordinator.dispatch.choose_other(plan, engine, row, time_s, TIMER)
        if second is None or (plan.stage.runs_on == "tokens" and not coordinator.admission.fits(plan, second, row)):
            return
        first = row - place
        places = self._lowered.pipelines[self._lowered.request_pipeline[request]].pass_of(place)
        rows = [first + one for one in places]
        self._copy(rows)
        self._copies[row] = rows
        self.num_hedges[request] += 1
        copy = self._base + row
        if plan.stage.runs_on == "tokens":
            if plan.decode is not None and plan.may_split:
                coordinator.hand_over.join_or_split(plan, second, copy, self._base + first + plan.decode)
            coordinator.admission.set_key(request, second, copy, decodes=False)
        coordinator.visits.push(second, plan.queues[second], copy, time_s, TIMER)

    def _copy(self, rows: Sequence[int]) -> None:
        """Rows as those of the visits were before their first attempt."""
        state = self._state
        for row in rows:
            copy = self._base + row
            for name in ROW_FIELDS:
                field = getattr(state, name)
                field[copy] = field[row] if name in GIVEN else FIELDS[name][2]
            after = int(state.row_continues_as[row])
            state.row_continues_as[copy] = after if after < 0 or self.is_copy(after) else after + self._base
            state.row_flags[copy] = state.row_flags[row] & np.uint8(WATCHED)

    # ----- answers

    def answered(self, row: int, time_s: float) -> int | None:
        """A watched visit or copy has ended: the row that it goes on as, or None if nobody waits for it."""
        if row in self._overtaken:
            self._overtaken.discard(row)
            return None
        visit = row - self._base if self.is_copy(row) else row
        rows = self._copies.pop(visit, None)
        if rows is None and self.is_copy(row):
            self._give_up_kv(row, time_s)
        if rows is None:
            return None if self.is_copy(row) else row
        request = int(self._state.row_request[row])
        if self._coordinator.status[request] != UNFINISHED:
            self._take_back(rows, time_s, HAND_OFF)
            return None
        if self.is_copy(row):
            if np.isfinite(self._state.row_finish_s[visit]):
                self._overtaken.add(visit)
            place = int(self._lowered.row_stage[visit])
            places = self._lowered.pipelines[self._lowered.request_pipeline[request]].pass_of(place)
            self._coordinator.recall.take_back(request, places, time_s, HAND_OFF)
            self._change_places(rows)
        else:
            self._take_back(rows, time_s, HAND_OFF)
        return visit

    def _give_up_kv(self, row: int, time_s: float) -> None:
        """The slower of two prompts was computed in the step in which it was to leave: nobody sends its KV."""
        if self._state.row_slot[row] >= 0 and self._state.row_flags[row] & HOLDS_KV:
            engine = int(self._state.row_engine[row])
            take_back(self._coordinator.handle, engine, np.array([row], np.int64), time_s, HAND_OFF)
            self._coordinator.after_push(engine)

    def learn(self, plan: StagePlan, row: int, time_s: float) -> None:
        """How long the stage took, from the first of both."""
        started_s = self._started_s.pop(row, None)
        if started_s is not None and plan.hedge is not None and plan.hedge.after_percentile is not None:
            insort(self._answered_s.setdefault(id(plan), []), time_s - started_s)

    def _change_places(self, rows: Sequence[int]) -> None:
        """The copy's rows become the visits', with the slots that they hold; what is left of the others is theirs."""
        state = self._state
        visits = np.array(rows, np.int64)
        copies = visits + self._base
        for name in ROW_FIELDS:
            field = getattr(state, name)
            field[visits], field[copies] = field[copies].copy(), field[visits].copy()
        both = np.concatenate((visits, copies))
        after = state.row_continues_as[both]
        moved = np.where(after >= self._base, after - self._base, after + self._base)
        state.row_continues_as[both] = np.where(after >= 0, moved, -1)
        for row in both[state.row_slot[both] >= 0].tolist():
            state.slot_row[state.row_engine[row], state.row_slot[row]] = row

    # ----- ends

    def lost(self, rows: Sequence[int]) -> list[int]:
        """Rows that a failure has thrown out: copies are not sent again. Returns the others."""
        for row in rows:
            if self.is_copy(row):
                self._copies = {first: of for first, of in self._copies.items() if row - self._base not in of}
        return [row for row in rows if not self.is_copy(row)]

    def forget(self, rows: Sequence[int], time_s: float, rank: int) -> None:
        """Nobody wants these visits any more: nor their copies."""
        for row in rows:
            copied = self._copies.pop(row, None)
            if copied is not None:
                self._take_back(copied, time_s, rank)

    def _take_back(self, rows: Sequence[int], time_s: float, rank: int) -> None:
        copies = self._base + np.array(rows, np.int64)
        engine = int(self._state.row_engine[copies[0]])
        fleet = self._coordinator.fleet
        if engine >= 0 and not (fleet is not None and fleet.has_failed(engine)):
            take_back(self._coordinator.handle, engine, copies, time_s, rank)
            self._coordinator.after_push(engine)


GIVEN = frozenset({
    "row_request", "row_prompt", "row_output", "row_text", "row_common", "row_priority", "row_client",
    "row_first_sample", "row_num_samples", "row_units", "row_seconds", "row_adapter",
})  # fmt: skip
"""What a visit brings; all else is as before its first attempt."""


def hedges_of(coordinator: Coordinator) -> Hedges | None:
    """None where no stage is hedged."""
    hedged = any(stage.hedge is not None for plan in coordinator.lowered.pipelines for stage in plan.stages)
    return Hedges(coordinator) if hedged else None
