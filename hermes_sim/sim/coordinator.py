"""Walks every request through its pipeline: arrivals, routing, hand-offs, transfers, ends.

Python touches a request a fixed number of times per stage; what happens inside the engines is compiled (sim/steps.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hermes_sim.core.errors import SimulationError
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.advance import act, next_action, pull_all, push, release_kv, reserve, run_until
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.plans import PipelinePlan, StagePlan
from hermes_sim.sim.ranks import ARRIVAL, HAND_OFF, SCHEDULING, STEP_DONE, TRANSFER
from hermes_sim.sim.replicas import Replica, kv_transfer_bytes
from hermes_sim.state.arrays import DONE, HAS_KV, HOLDS_KV, WATCHED

Progress = Callable[[float, int, int], None]
"""(simulated seconds, requests done, requests in all)"""

FINISHED, REJECTED, UNFINISHED = 0, 1, 2

PROGRESS_INTERVAL_S = 0.1
"""Wall time between two reports; only how often, never what."""


class Coordinator:
    """One run. Construct, `run()`, then read `lowered.state` and the arrays here."""

    def __init__(self, lowered: Lowered, progress: Progress | None = None) -> None:
        self.lowered = lowered
        self.state = lowered.state
        self.handle = lowered.state.handle
        self.clock = Clock()
        self.flows = Flows(self.clock, lowered.network.links)
        self._progress = progress
        self._reported_at = time.monotonic()
        requests = lowered.requests
        number = requests.num_requests
        self.status = np.full(number, UNFINISHED, np.int8)
        self.arrival_s = requests.arrival_s.copy()
        self.row_transfer_s = np.zeros(len(lowered.row_stage))
        self._pending = self._pending_predecessors()
        self._open_ends = np.array([len(plan.terminals) for plan in lowered.pipelines])[lowered.request_pipeline]
        self._turns = [[0] * len(plan.stages) for plan in lowered.pipelines]
        self._followers = self._turns_after()
        self._next_of_loop = 0
        self._transfers: dict[int, tuple[int, int]] = {}
        """Decode row -> (prefill row, engine that reserved) while it waits for blocks or bytes."""
        self._exact = ExactSteps(self) if lowered.scenario.exact_steps else None
        watched = bool((self.state.row_flags & WATCHED).any()) or self._may_split()
        if self._exact is None and watched:
            self.clock.before_step = self._bring_up_to_head

    # ----- the run

    def run(self) -> None:
        """Until nothing is left to happen. Raises SimulationError if requests are stuck."""
        self._start_traffic()
        self.clock.run()
        self._drain()
        self._check_nothing_waits()
        self._report(force=True)

    def _bring_up_to_head(self) -> None:
        """Advance watched engines to the next event; what they put out may come before it."""
        while True:
            head = self.clock.head
            time_s, rank = head if head is not None else (np.inf, SCHEDULING)
            if run_until(self.handle, time_s, rank, False) == 0:
                return
            self._collect_outbox()

    def _collect_outbox(self) -> None:
        """Outward events of the engines become events of the clock."""
        state = self.state
        for place in range(int(state.outbox_count[0])):
            row, kind = int(state.outbox_row[place]), int(state.outbox_kind[place])
            self.clock.at(
                float(state.outbox_time_s[place]),
                HAND_OFF,
                self._on_done if kind == DONE else self._on_granted,
                kind=kind,
                engine=int(state.row_engine[row]),
                row=row,
            )
        state.outbox_count[0] = 0

    def _drain(self) -> None:
        """Nobody waits for anything any more: let all engines finish, in slices, so that Ctrl-C is heard."""
        state = self.state
        slice_s = max(float(self.clock.now), 1.0) / 16
        while True:
            started_at = time.monotonic()
            starts = np.minimum(state.next_start_s, state.lane_end_s.min(axis=1))
            earliest_s = float(starts.min(initial=np.inf))
            if np.isinf(earliest_s):
                return
            num_outputs = run_until(self.handle, earliest_s + slice_s, SCHEDULING, True)
            assert num_outputs == 0, "law 9: an engine put something out after the last event"
            self._report()
            if time.monotonic() - started_at < PROGRESS_INTERVAL_S:
                slice_s *= 2.0

    # ----- traffic

    def _start_traffic(self) -> None:
        requests = self.lowered.requests
        if requests.closed_loop is not None:
            self._next_of_loop = min(requests.closed_loop.concurrency, requests.num_requests)
            for request in range(self._next_of_loop):
                think_s = float(requests.closed_loop.think_time_s[request])
                self.clock.at(think_s, ARRIVAL, self._on_arrival, row=request)
            return
        given = np.flatnonzero(~np.isnan(requests.arrival_s))
        if len(given):
            self._arrivals = iter(given.tolist())
            self._schedule_next_arrival()

    def _schedule_next_arrival(self) -> None:
        """One arrival stands in the queue at a time."""
        request = next(self._arrivals, None)
        if request is not None:
            self.clock.at(float(self.arrival_s[request]), ARRIVAL, self._on_trace_arrival, row=request)

    def _on_trace_arrival(self, event: Any) -> None:
        self._schedule_next_arrival()
        self._on_arrival(event)

    def _on_arrival(self, event: Any) -> None:
        request = event.subject
        time_s = float(self.clock.now)
        self.arrival_s[request] = time_s
        plan = self.lowered.pipelines[self.lowered.request_pipeline[request]]
        for place in plan.roots:
            self._start_visit(request, place, time_s, ARRIVAL)
        self._report()

    def _turns_after(self) -> dict[int, list[int]]:
        """Request -> requests that are sent when it has ended."""
        followers: dict[int, list[int]] = {}
        previous = self.lowered.requests.previous
        for request in np.flatnonzero(previous >= 0).tolist():
            followers.setdefault(int(previous[request]), []).append(request)
        return followers

    def _end_request(self, request: int, status: int, time_s: float) -> None:
        """The request is out; whoever waited for its end sends the next."""
        if self.status[request] != UNFINISHED:
            return
        self.status[request] = status
        requests = self.lowered.requests
        for turn in self._followers.get(request, ()):
            self.clock.at(time_s + float(requests.think_s[turn]), ARRIVAL, self._on_arrival, row=turn)
        loop = requests.closed_loop
        if loop is not None and self._next_of_loop < requests.num_requests:
            following = self._next_of_loop
            self._next_of_loop += 1
            self.clock.at(time_s + float(loop.think_time_s[following]), ARRIVAL, self._on_arrival, row=following)

    # ----- stages

    def _pending_predecessors(self) -> np.ndarray[Any, Any]:
        """[num_rows] stages that must end before the visit can start."""
        lowered = self.lowered
        pending = np.zeros(len(lowered.row_stage), np.int8)
        for number, plan in enumerate(lowered.pipelines):
            members = np.flatnonzero(lowered.request_pipeline == number)
            for place, stage in enumerate(plan.stages):
                pending[lowered.first_row[members] + place] = stage.num_predecessors
        return pending

    def _start_visit(self, request: int, place: int, time_s: float, rank: int) -> None:
        """Route a visit to an engine and put it in line there; or pass over it."""
        lowered = self.lowered
        pipeline = int(lowered.request_pipeline[request])
        row = int(lowered.first_row[request]) + place
        if lowered.skipped[row] or self.status[request] == REJECTED:
            self._end_visit(request, place, time_s, rank)
            return
        plan = lowered.pipelines[pipeline].stages[place]
        engine = self._choose(plan, row, self._turns[pipeline], place, time_s, rank)
        if plan.stage.runs_on == "tokens" and not self._fits(plan, engine, row):
            self._reject(request, time_s)
            return
        if plan.decode is not None and len(plan.same_engine) < len(plan.candidates):
            self._join_or_split(plan, engine, row, int(lowered.first_row[request]) + plan.decode)
        push(self.handle, engine, plan.queues[engine], row, time_s, rank)
        self._after_push(engine)

    def _choose(self, plan: StagePlan, row: int, turns: list[int], place: int, time_s: float, rank: int) -> int:
        """The router's choice among the engines of a stage, on their loads at this moment."""
        candidates = plan.candidates
        assert len(candidates) > 0, "the checks let a stage without engines through"
        turn = turns[place]
        turns[place] = turn + 1
        if len(candidates) == 1:
            return int(candidates[0])
        if plan.router.reads_loads and self._exact is None:
            pull_all(self.handle, candidates, time_s, rank)
        draw = float(self.lowered.draws[row])
        return int(plan.router.choose(self.handle, candidates, row, turn, draw, plan.options))

    def _fits(self, plan: StagePlan, engine: int, row: int) -> bool:
        """Whether the engine could ever hold the whole sequence."""
        state = self.state
        joined = plan.decode is None or engine in plan.same_engine
        num_tokens = int(state.row_prompt[row]) + (max(int(state.row_output[row]) - 1, 0) if joined else 0)
        return -(-num_tokens // int(state.block_tokens[engine])) <= int(state.num_blocks[engine])

    def _reject(self, request: int, time_s: float) -> None:
        self._end_request(request, REJECTED, time_s)

    def _join_or_split(self, plan: StagePlan, engine: int, row: int, decode_row: int) -> None:
        """Decode goes on in this engine if it serves decode; else the prompt's KV is sent to one that does."""
        state = self.state
        if engine in plan.same_engine:
            state.row_continues_as[row] = decode_row
            return
        state.row_flags[row] |= WATCHED
        if state.row_output[row] > 1:
            state.row_flags[row] |= HOLDS_KV
        state.row_output[row] = min(int(state.row_output[row]), 1)

    def _may_split(self) -> bool:
        return any(
            stage.decode is not None and len(stage.same_engine) < len(stage.candidates)
            for plan in self.lowered.pipelines
            for stage in plan.stages
        )

    def _on_done(self, event: Any) -> None:
        """A watched visit has ended in an engine."""
        row = event.subject
        request = int(self.state.row_request[row])
        place = int(self.lowered.row_stage[row])
        self._end_visit(request, place, float(self.clock.now), HAND_OFF)

    def _end_visit(self, request: int, place: int, time_s: float, rank: int) -> None:
        """Start what waited for this visit; the request ends with its last one."""
        lowered = self.lowered
        plan = lowered.pipelines[lowered.request_pipeline[request]]
        stage = plan.stages[place]
        first = int(lowered.first_row[request])
        if not stage.successors:
            self._open_ends[request] -= 1
            if self._open_ends[request] == 0:
                self._end_request(request, FINISHED, time_s)
            return
        for successor in stage.successors:
            row = first + successor
            joined = successor == stage.decode and self.state.row_continues_as[first + place] == row
            if joined and not lowered.skipped[row]:
                continue
            self._pending[row] -= 1
            if self._pending[row] > 0:
                continue
            if successor == stage.decode and not lowered.skipped[first + place]:
                self._start_decode(request, place, successor, time_s)
            else:
                self._start_visit(request, successor, time_s, rank)

    # ----- disaggregated decode

    def _start_decode(self, request: int, prefill: int, decode: int, time_s: float) -> None:
        """Prefill ended elsewhere: reserve blocks at a decode engine, send the KV, then decode (rule 18)."""
        lowered, state = self.lowered, self.state
        pipeline = int(lowered.request_pipeline[request])
        first = int(lowered.first_row[request])
        row, prefill_row = first + decode, first + prefill
        if state.row_output[row] <= 1:
            # no token is left to decode
            state.row_arrival_s[row] = state.row_start_s[row] = state.row_finish_s[row] = time_s
            state.row_generated[row] = state.row_output[row]
            self._end_visit(request, decode, time_s, HAND_OFF)
            return
        plan = lowered.pipelines[pipeline].stages[decode]
        engine = self._choose(plan, row, self._turns[pipeline], decode, time_s, HAND_OFF)
        state.row_generated[row] = 1
        state.row_last_token_s[row] = time_s
        if not self._fits(plan, engine, row):
            self._release(prefill_row, time_s, HAND_OFF)
            self._reject(request, time_s)
            return
        self._transfers[row] = (prefill_row, engine)
        if reserve(self.handle, engine, row, time_s, HAND_OFF):
            self._send(row)
        self._after_push(engine)

    def _on_granted(self, event: Any) -> None:
        self._send(event.subject)

    def _send(self, row: int) -> None:
        """Blocks are reserved: the prompt's KV sets out."""
        prefill_row, engine = self._transfers[row]
        source = self.lowered.replicas[int(self.state.row_engine[prefill_row])]
        target = self.lowered.replicas[engine]
        sent_s = float(self.clock.now)
        num_bytes = kv_transfer_bytes(source, int(self.state.row_prompt[row]))

        def arrived(time_s: float) -> None:
            self.row_transfer_s[row] = time_s - sent_s
            self._release(prefill_row, time_s, TRANSFER)
            del self._transfers[row]
            self.state.row_flags[row] |= HAS_KV
            push(self.handle, engine, int(self.state.first_queue[engine]), row, time_s, TRANSFER)
            self._after_push(engine)

        self.flows.start(self._route(source, target), num_bytes, arrived)

    def _route(self, source: Replica, target: Replica) -> Any:
        return self.lowered.network.group_route(source.endpoints, target.endpoints)

    def _release(self, prefill_row: int, time_s: float, rank: int) -> None:
        """The prefill side's blocks are free."""
        engine = int(self.state.row_engine[prefill_row])
        release_kv(self.handle, engine, prefill_row, time_s, rank)
        self._after_push(engine)

    def _after_push(self, engine: int) -> None:
        """Something outward may have come of it; with one event a step the engine's next one is planned anew."""
        if self.state.outbox_count[0] > 0:
            self._collect_outbox()
        if self._exact is not None:
            self._exact.plan(int(self.state.group_of[engine]))

    # ----- the end

    def _check_nothing_waits(self) -> None:
        """Law 9: a run that cannot go on says which request waits for what."""
        lowered, state = self.lowered, self.state
        number = len(lowered.row_stage)
        if number == 0:
            return
        ended = ~np.isnan(state.row_finish_s[:number]) | lowered.skipped
        complete = np.logical_and.reduceat(ended, lowered.first_row[:-1])
        self.status[complete & (self.status == UNFINISHED)] = FINISHED
        stuck = np.flatnonzero(self.status == UNFINISHED)
        if len(stuck) == 0:
            return
        reasons = []
        for request in stuck[:5].tolist():
            rows = range(int(lowered.first_row[request]), int(lowered.first_row[request + 1]))
            plan = lowered.pipelines[lowered.request_pipeline[request]]
            row = next(row for row in rows if not ended[row])
            reasons.append(f"request {request} waits for {self._what_holds(plan, row)}")
        more = f" (and {len(stuck) - 5} more requests)" if len(stuck) > 5 else ""
        raise SimulationError("the run cannot go on: " + "; ".join(reasons) + more)

    def _what_holds(self, plan: PipelinePlan, row: int) -> str:
        stage = plan.stages[int(self.lowered.row_stage[row])].stage
        engine = int(self.state.row_engine[row])
        if engine < 0:
            return f"stage '{stage.name}', which was never started"
        name = self.lowered.replicas[engine].name
        if stage_kind(stage) in ("prefill", "decode"):
            free, total = int(self.state.num_free_blocks[engine]), int(self.state.num_blocks[engine])
            return f"stage '{stage.name}' at {name}, where {free} of {total} KV blocks are free"
        return f"stage '{stage.name}' at {name}"

    def _report(self, force: bool = False) -> None:
        if self._progress is None:
            return
        now = time.monotonic()
        if force or now - self._reported_at >= PROGRESS_INTERVAL_S:
            self._reported_at = now
            done = self._num_done_so_far()
            self._progress(float(max(self.clock.now, self.state.now_s.max(initial=0.0))), done, len(self.status))

    def _num_done_so_far(self) -> int:
        lowered = self.lowered
        last_rows = lowered.first_row[1:] - 1
        if len(last_rows) == 0:
            return 0
        ended = ~np.isnan(self.state.row_finish_s[last_rows])
        return int((ended | (self.status == REJECTED) | (self.status == FINISHED)).sum())


class ExactSteps:
    """One SimPy event per begin and end of a step: the slow twin that production must equal to the last bit."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._planned: dict[int, tuple[float, int]] = {}
        self._versions: dict[int, int] = {}

    def plan(self, group: int) -> None:
        """Put the group's next action into the queue, unless it stands there."""
        coordinator = self._coordinator
        time_s, begins = next_action(coordinator.handle, group)
        action = (float(time_s), int(begins))
        if np.isinf(action[0]):
            self._planned.pop(group, None)
            self._versions[group] = self._versions.get(group, 0) + 1
            return
        if self._planned.get(group) == action:
            return
        self._planned[group] = action
        version = self._versions[group] = self._versions.get(group, 0) + 1

        def on_time(event: Any) -> None:
            if self._versions[group] == version:
                self._planned.pop(group)
                act(coordinator.handle, group)
                coordinator._collect_outbox()
                self.plan(group)

        rank = SCHEDULING if begins else STEP_DONE
        coordinator.clock.at(action[0], rank, on_time, engine=group)
