"""Visits begin: a stage that takes no time, a KV retrieval, or the line of an engine that was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_sim.sim.advance import push
from hermes_sim.sim.plain import plain
from hermes_sim.sim.plans import NO_ENGINE, StagePlan
from hermes_sim.sim.ranks import CONTROL
from hermes_sim.sim.status import UNFINISHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class Visits:
    """Starts every visit of a run."""

    def __init__(self, coordinator: Coordinator) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._lowered = lowered
        self._state, self._handle = coordinator.state, coordinator.handle
        self._first_row, self._pipeline_of = plain(lowered.first_row), plain(lowered.request_pipeline)
        self._skipped = plain(lowered.skipped)
        self._status = plain(coordinator.status)
        self._any_tokenizers = coordinator.front_end.any_tokenizers

    def start(self, request: int, place: int, time_s: float, rank: int) -> None:
        """Route a visit to an engine and put it in line there; or pass over it."""
        coordinator = self._coordinator
        row = self._first_row[request] + place
        if self._skipped[row] or self._status[request] != UNFINISHED:
            coordinator.ends.end_visit(request, place, time_s, rank)
            return
        plan = self._lowered.pipelines[self._pipeline_of[request]].stages[place]
        if plan.prefill is not None:
            assert coordinator.retrievals is not None
            coordinator.retrievals.start(request, plan, place, row, time_s, rank)
            return
        if plan.stage.runs_on == "nowhere":
            self._pass(request, plan, row, time_s, rank)
            coordinator.ends.end_visit(request, place, time_s, rank)
            return
        engine = coordinator.dispatch.choose(request, plan, place, row, time_s, rank)
        if engine == NO_ENGINE:
            coordinator.dispatch.wait_for_engine(row, lambda up_s: self.start(request, place, up_s, CONTROL))
            return
        if plan.stage.runs_on == "tokens":
            if not coordinator.admission.admits(request, plan, engine, row, time_s):
                return

            def go_on(at_s: float, at_rank: int) -> None:
                self._enter(plan, place, engine, row, at_s, at_rank)

            if plan.may_split and coordinator.hand_over.waits_for_room(request, plan, row, time_s, rank, go_on):
                return
        self._enter(plan, place, engine, row, time_s, rank)

    def _enter(self, plan: StagePlan, place: int, engine: int, row: int, time_s: float, rank: int) -> None:
        """Into the line of the engine that was chosen, behind vectors of encoders or by way of its tokenisers."""
        coordinator = self._coordinator
        if coordinator.fleet is not None and coordinator.fleet.has_failed(engine):  # while the visit waited for room
            coordinator.retries.send_again([row], time_s)
            return
        if plan.stage.runs_on == "tokens":
            embeddings = coordinator.embeddings
            if plan.encoded_by and embeddings is not None and embeddings.are_first(plan, place, engine, row, time_s):
                return
            if self._any_tokenizers and coordinator.tokenizing.is_first(engine, row, time_s):
                return
        self.push(engine, plan.queues[engine], row, time_s, rank)
        if plan.hedge is not None:
            assert coordinator.hedges is not None
            request = int(self._state.row_request[row])
            coordinator.hedges.pushed(request, plan, place, engine, row, time_s)

    def push(self, engine: int, queue: int, row: int, time_s: float, rank: int) -> None:
        """The visit joins the engine's line."""
        push(self._handle, engine, queue, row, time_s, rank)
        self._coordinator.after_push(engine)

    def _pass(self, request: int, plan: StagePlan, row: int, time_s: float, rank: int) -> None:
        """A stage that takes no time; a route by load decides which stages the request will pass."""
        state = self._state
        state.row_arrival_s[row] = state.row_start_s[row] = state.row_finish_s[row] = time_s
        if not plan.choices:
            return
        loads = []
        for choice in plan.choices:
            self._coordinator.dispatch.bring_up(choice.engines, time_s, rank)
            loads.append(float(state.load_tokens[choice.engines].sum()) / choice.capacity)
        chosen = plan.choices[loads.index(min(loads))]
        first = self._first_row[request]
        for place in chosen.left_out:
            self._skipped[first + place] = True
