"""Walks every request through its pipeline: arrivals, routing, hand-offs, transfers, ends.

Python touches a request a fixed number of times per stage; what happens inside the engines is compiled (sim/steps.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hermes_sim.sim.advance import pull_all, push, run_until
from hermes_sim.sim.bulk_arrivals import can_be_laid_out, push_all_arrivals
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.disaggregated import HandOver
from hermes_sim.sim.exact_steps import ExactSteps
from hermes_sim.sim.fleet import Fleet
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.front_end import FrontEnd
from hermes_sim.sim.kv_retrieval import Retrievals
from hermes_sim.sim.kv_stores import build_kv_stores
from hermes_sim.sim.lower import Lowered, planned_outputs
from hermes_sim.sim.plain import plain
from hermes_sim.sim.plans import NO_ENGINE, StagePlan
from hermes_sim.sim.progress import PROGRESS_INTERVAL_S, Progress, ProgressReport
from hermes_sim.sim.python_policy import PythonPolicies
from hermes_sim.sim.queue_keys import QueueKeys
from hermes_sim.sim.ranks import ARRIVAL, CONTROL, HAND_OFF, SCHEDULING
from hermes_sim.sim.replicas import most_tokens
from hermes_sim.sim.retries import FAILED, Retries
from hermes_sim.sim.step_log import StepLog
from hermes_sim.sim.stuck import refuse_waiting
from hermes_sim.sim.traffic import TrafficSource
from hermes_sim.state.arrays import GRANTED, NEED_SCHEDULE, WATCHED
from hermes_sim.state.sequences import final_outputs

FINISHED, REJECTED, UNFINISHED = 0, 1, 2

TOKENIZED = 1
"""Kind of an arrival's event: after the requests that arrive at the same time."""


class Coordinator:
    """One run. Construct, `run()`, then read `lowered.state` and the arrays here."""

    def __init__(self, lowered: Lowered, progress: Progress | None = None, *, steps: bool = False) -> None:
        """`steps`: log every step and decision, one event per step."""
        self.lowered = lowered
        self.state = lowered.state
        self.handle = lowered.state.handle
        self.clock = Clock()
        self.flows = Flows(self.clock, lowered.network.links)
        self.front_end = FrontEnd(lowered)
        self.status = np.full(lowered.requests.num_requests, UNFINISHED, np.int8)
        self.row_transfer_s = np.zeros(lowered.num_visits)
        self.row_link_energy_j = np.zeros(lowered.num_visits)
        self.step_log = StepLog(lowered) if steps else None
        self._traffic = TrafficSource(self.clock, lowered.requests, self._on_arrival)
        self.arrival_s = self._traffic.arrival_s
        self._hand_over = HandOver(self, self.flows)
        stores = build_kv_stores(lowered, self.flows, self.row_link_energy_j)
        self.retrievals = Retrievals(self, self.flows, stores) if stores is not None else None
        self._came_from = self.state.row_came_from if (self.state.row_came_from >= 0).any() else None
        self._keys = QueueKeys(lowered.state, lowered.replicas, lowered.scenario.workload.slo)
        self._progress = ProgressReport(progress, self._now_s, self._counts)
        self._policies = PythonPolicies(lowered) if lowered.state.python_policy.any() else None
        self._first_row, self._pipeline_of = plain(lowered.first_row), plain(lowered.request_pipeline)
        self._skipped, self._draws = plain(lowered.skipped), plain(lowered.draws)
        self._status = plain(self.status)
        self._prompt, self._final = plain(self.state.row_prompt), plain(planned_outputs(lowered))
        self._capacity = [most_tokens(replica) for replica in lowered.replicas]
        self._pending = self._pending_predecessors()
        self._open_ends = np.array([len(plan.terminals) for plan in lowered.pipelines])[lowered.request_pipeline]
        self._turns = [[0] * len(plan.stages) for plan in lowered.pipelines]
        self._exact = None
        self.num_open = lowered.requests.num_requests
        self._fleet = Fleet(self) if lowered.scenario.cluster.can_change else None
        self.retries = Retries(self)
        self._ended_rows: set[int] = set()
        """Rows whose end has been handed on: kept where a visit may end twice."""
        self._is_laid_out = False
        if lowered.scenario.exact_steps or steps:
            self._exact = ExactSteps(self.clock, self.handle, self._after_act)
        elif self._is_watched():
            self.clock.before_step = self._bring_up_to_head
        elif self._fleet is None and not self.front_end.any_tokenizers and not self._keys.any_sorted:
            self._is_laid_out = can_be_laid_out(lowered, self._capacity)

    # ----- the run

    def run(self) -> None:
        """Until nothing is left to happen. Raises SimulationError if requests are stuck."""
        if self._fleet is not None:
            self._fleet.start()
        if self._is_laid_out:
            push_all_arrivals(self.lowered, self._progress.report)
        else:
            self._traffic.start()
            self.clock.run()
        self._drain()
        self._close_requests()
        self._progress.report(force=True)

    def _is_watched(self) -> bool:
        """Whether engines may have to say something before the next event from outside."""
        state = self.state
        splits = any(stage.may_split for plan in self.lowered.pipelines for stage in plan.stages)
        return bool((state.row_flags & WATCHED).any()) or bool(state.num_watched.any()) or splits

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
            time_s, row = float(state.outbox_time_s[place]), int(state.outbox_row[place])
            kind = int(state.outbox_kind[place])
            if kind == NEED_SCHEDULE:  # of the engine `row`
                self.clock.at(time_s, SCHEDULING, self._on_need_schedule, kind=kind, engine=row, row=row)
                continue
            function = self._on_granted if kind == GRANTED else self._on_done
            self.clock.at(time_s, HAND_OFF, function, kind=kind, engine=int(state.row_engine[row]), row=row)
        state.outbox_count[0] = 0

    def _on_need_schedule(self, event: Any) -> None:
        """A policy in Python decides the step that an engine begins now."""
        engine = event.subject
        assert self._policies is not None
        self._policies.schedule(engine, float(self.clock.now))
        if self.step_log is not None:
            self.step_log.after_act(int(self.state.group_of[engine]), float(self.clock.now))
        self.after_push(engine)

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
            if run_until(self.handle, earliest_s + slice_s, SCHEDULING, True) > 0:
                assert self._policies is not None, "law 9: an engine put something out after the last event"
                self._collect_outbox()
                self.clock.run()
            self._progress.report()
            if time.monotonic() - started_at < PROGRESS_INTERVAL_S:
                slice_s *= 2.0

    def _after_act(self, group: int) -> None:
        """One step has begun or ended, with one event a step."""
        if self.step_log is not None:
            self.step_log.after_act(group, float(self.clock.now))
        self._collect_outbox()

    def after_push(self, engine: int) -> None:
        """Something outward may have come of it; with one event a step the engine's next one is planned anew."""
        if self.state.outbox_count[0] > 0:
            self._collect_outbox()
        if self._exact is not None:
            self._exact.plan(int(self.state.group_of[engine]))

    # ----- stages

    def _on_arrival(self, request: int) -> None:
        time_s = float(self.clock.now)
        plan = self.lowered.pipelines[self._pipeline_of[request]]
        for place in plan.roots:
            self.start_visit(request, place, time_s, ARRIVAL)
        self._progress.report()

    def _pending_predecessors(self) -> np.ndarray[Any, Any]:
        """[num_visits] stages that must end before the visit can start."""
        lowered = self.lowered
        pending = np.zeros(lowered.num_visits, np.int8)
        for number, plan in enumerate(lowered.pipelines):
            members = np.flatnonzero(lowered.request_pipeline == number)
            for place, stage in enumerate(plan.stages):
                pending[lowered.first_row[members] + place] = len(stage.predecessors)
        return pending

    def start_visit(self, request: int, place: int, time_s: float, rank: int) -> None:
        """Route a visit to an engine and put it in line there; or pass over it."""
        row = self._first_row[request] + place
        if self._skipped[row] or self._status[request] in (REJECTED, FAILED):
            self.end_visit(request, place, time_s, rank)
            return
        plan = self.lowered.pipelines[self._pipeline_of[request]].stages[place]
        if plan.prefill is not None:
            assert self.retrievals is not None
            self.retrievals.start(request, plan, place, row, time_s, rank)
            return
        if plan.stage.runs_on == "nowhere":
            self._pass(request, plan, row, time_s, rank)
            self.end_visit(request, place, time_s, rank)
            return
        engine = self.choose(request, plan, place, row, time_s, rank)
        if engine == NO_ENGINE:
            self.wait_for_engine(lambda up_s: self.start_visit(request, place, up_s, CONTROL))
            return
        if plan.stage.runs_on == "tokens":
            if not self.admits(request, plan, engine, row, time_s):
                return
            if self.front_end.any_tokenizers and self._is_tokenized_first(engine, row, time_s):
                return
        self.push(engine, plan.queues[engine], row, time_s, rank)

    def admits(self, request: int, plan: StagePlan, engine: int, row: int, time_s: float) -> bool:
        """Prepare a prompt for the engine chosen; False: it can never hold the sequence, and the request is out."""
        if not self.fits(plan, engine, row):
            self.reject(request, time_s)
            return False
        if plan.decode is not None and plan.may_split:
            self._hand_over.join_or_split(plan, engine, row, self._first_row[request] + plan.decode)
        self.set_key(request, engine, row, decodes=False)
        return True

    def _pass(self, request: int, plan: StagePlan, row: int, time_s: float, rank: int) -> None:
        """A stage that takes no time; a route by load decides which stages the request will pass."""
        state = self.state
        state.row_arrival_s[row] = state.row_start_s[row] = state.row_finish_s[row] = time_s
        if not plan.choices:
            return
        loads = []
        for choice in plan.choices:
            self.bring_up(choice.engines, time_s, rank)
            loads.append(float(state.load_tokens[choice.engines].sum()) / choice.capacity)
        chosen = plan.choices[loads.index(min(loads))]
        first = self._first_row[request]
        for place in chosen.left_out:
            self._skipped[first + place] = self.lowered.skipped[first + place] = True

    def push(self, engine: int, queue: int, row: int, time_s: float, rank: int) -> None:
        """The visit joins the engine's line."""
        push(self.handle, engine, queue, row, time_s, rank)
        self.after_push(engine)

    def choose(self, request: int, plan: StagePlan, place: int, row: int, time_s: float, rank: int) -> int:
        """The router's choice among the engines of a stage, on their loads at this moment; NO_ENGINE: all are away."""
        if self._came_from is not None and self._came_from[row] >= 0:
            return int(self.state.row_engine[self._came_from[row]])  # where its KV was left
        turns = self._turns[self._pipeline_of[request]]
        candidates = plan.candidates
        assert len(candidates) > 0, "the checks let a stage without engines through"
        if self._fleet is not None:
            candidates = self._fleet.usable(candidates)
            if len(candidates) == 0:
                return NO_ENGINE
        turn = turns[place]
        turns[place] = turn + 1
        if len(candidates) == 1:
            return int(candidates[0])
        router = plan.router
        if router.reads_loads:
            self.bring_up(candidates, time_s, rank)
        state = self.state if router.in_python else self.handle
        return int(router.choose(state, candidates, row, turn, self._draws[row], plan.options))

    def bring_up(self, engines: np.ndarray[Any, np.dtype[np.int64]], time_s: float, rank: int) -> None:
        """Engines to the present, so that their loads can be read."""
        if self._exact is None and len(engines) > 0:
            pull_all(self.handle, engines, time_s, rank)

    def fits(self, plan: StagePlan, engine: int, row: int) -> bool:
        """Whether the engine could ever hold the whole sequence."""
        decodes_here = plan.decode is None or engine in plan.same_engine
        num_tokens = self._prompt[row] + max((self._final[row] if decodes_here else 1) - 1, 0)
        return bool(num_tokens <= self._capacity[engine])

    def set_key(self, request: int, engine: int, row: int, *, decodes: bool) -> None:
        """Where the visit stands in a line that is sorted."""
        if self._keys.any_sorted:
            self._keys.set(engine, row, float(self.arrival_s[request]), decodes)

    def reject(self, request: int, time_s: float) -> None:
        """No engine can ever hold the request."""
        self.end_request(request, REJECTED, time_s)

    def _is_tokenized_first(self, engine: int, row: int, time_s: float) -> bool:
        """Send the visit to the engine's tokenisers, from where it joins the line; False: it has its tokens at once."""
        state = self.state
        ready_s = self.tokenized_at_s(engine, row, row, time_s)
        if ready_s == time_s:
            return False
        self.count_load(engine, row, 1)  # routers see it from now on

        def on_tokens(event: Any) -> None:
            self.count_load(engine, row, -1)  # the push counts it again
            self.push(engine, int(state.first_queue[engine]), row, ready_s, ARRIVAL)

        self.clock.at(ready_s, ARRIVAL, on_tokens, kind=TOKENIZED, engine=engine, row=row)
        return True

    def tokenized_at_s(self, engine: int, row: int, prompt_row: int, time_s: float) -> float:
        """When the tokens of a prompt are there; a visit `row` waits for them."""
        if not self.front_end.any_tokenizers:
            return time_s
        num_tokens = self._prompt[prompt_row] - self._num_image_tokens(prompt_row)
        return self.front_end.tokenized_at_s(engine, row, num_tokens, time_s)

    def count_load(self, engine: int, row: int, sign: int) -> None:
        """What a push adds to an engine's load: the prompt, and an output token a step after it."""
        state = self.state
        num_output = int(final_outputs(state, np.array([row]))[0])
        state.load_requests[engine] += sign
        state.load_output_tokens[engine] += sign * num_output
        state.load_tokens[engine] += sign * (self._prompt[row] + max(num_output - 1, 0))

    def _num_image_tokens(self, row: int) -> int:
        """Of the prompt's tokens, those that no text becomes."""
        images = self.lowered.requests.num_image_tokens
        if images is None:
            return 0
        return min(int(images[self.state.row_request[row]]), int(self._prompt[row]))

    # ----- ends

    def _on_granted(self, event: Any) -> None:
        """An engine has reserved blocks for a visit that waited for them."""
        if self.retrievals is not None and self.retrievals.waits(event.subject):
            self.retrievals.on_granted(event.subject)
        else:
            self._hand_over.send(event.subject)

    def _on_done(self, event: Any) -> None:
        """A watched visit has ended in an engine."""
        row = event.subject
        request = int(self.state.row_request[row])
        place = int(self.lowered.row_stage[row])
        self.end_visit(request, place, float(self.clock.now), HAND_OFF)

    def end_visit(self, request: int, place: int, time_s: float, rank: int) -> None:
        """Start what waited for this visit; the request ends with its last one."""
        lowered = self.lowered
        plan = lowered.pipelines[self._pipeline_of[request]]
        stage = plan.stages[place]
        first = self._first_row[request]
        if self._fleet is not None:
            if first + place in self._ended_rows:
                return
            self._ended_rows.add(first + place)
        if stage.written_by is not None and not self._skipped[first + place] and self._status[request] == UNFINISHED:
            assert self.retrievals is not None
            self.retrievals.write(stage, place, first + place, time_s)
        if not stage.successors:
            self._open_ends[request] -= 1
            if self._open_ends[request] == 0:
                self.end_request(request, FINISHED, time_s + self._last_message_s(stage, first + place))
            return
        for successor in stage.successors:
            row = first + successor
            takes_over = successor in (stage.decode, stage.more_decode)
            joined = takes_over and self.state.row_continues_as[first + place] == row
            if joined and not self._skipped[row]:
                continue
            self._pending[row] -= 1
            if self._pending[row] > 0:
                continue
            if successor == stage.decode and not self._skipped[first + place]:
                self._hand_over.start_decode(request, first + place, successor, time_s)
            elif successor == stage.prefill and (engine := self._chosen_engine(row)) is not None:
                self.push(engine, int(self.state.first_queue[engine]), row, time_s, rank)
            else:
                self.start_visit(request, successor, time_s, rank)

    def _chosen_engine(self, row: int) -> int | None:
        """Of a prefill behind a KV retrieval that the request passed through."""
        return None if self.retrievals is None else self.retrievals.engine_of(row)

    def _last_message_s(self, stage: StagePlan, row: int) -> float:
        """From the end of a last visit to the client who waits for it."""
        engine = int(self.state.row_engine[row])
        if stage.stage.runs_on == "jobs" or engine < 0:
            return 0.0
        return float(self.front_end.detokenize_s[engine])

    def end_request(self, request: int, status: int, time_s: float) -> None:
        """The request is out; whoever waited for its end sends the next."""
        if self.status[request] == UNFINISHED:
            self.status[request] = status
            self.num_open -= 1
            self._traffic.ended(request, time_s)

    def _close_requests(self) -> None:
        """Requests whose visits have all ended are finished, watched or not; all others must have been rejected."""
        lowered = self.lowered
        number = lowered.num_visits
        if number == 0:
            return
        ended = ~np.isnan(self.state.row_finish_s[:number]) | lowered.skipped
        complete = np.logical_and.reduceat(ended, lowered.first_row[:-1])
        self.status[complete & (self.status == UNFINISHED)] = FINISHED
        refuse_waiting(lowered, np.flatnonzero(self.status == UNFINISHED), ended)

    def on_s(self, duration_s: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[num_engines] seconds of the run that each was paid for and drew power."""
        if self._fleet is None:
            return np.full(len(self.lowered.replicas), duration_s)
        return self._fleet.on_s(duration_s)

    # ----- failures

    def wait_for_engine(self, go_on: Callable[[float], None]) -> None:
        """All engines that could take a visit are away."""
        assert self._fleet is not None
        self._fleet.wait(go_on)

    @property
    def is_rejected(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[num_requests]"""
        return np.asarray((self.status == REJECTED) | (self.status == FAILED))

    # ----- progress

    def _now_s(self) -> float:
        return float(max(self.clock.now, self.state.now_s.max(initial=0.0)))

    def _counts(self) -> tuple[int, int]:
        """Requests done so far, and in all."""
        last_rows = self.lowered.first_row[1:] - 1
        if len(last_rows) == 0:
            return 0, len(self.status)
        ended = ~np.isnan(self.state.row_finish_s[last_rows])
        done = ended | (self.status != UNFINISHED)
        return int(done.sum()), len(self.status)
