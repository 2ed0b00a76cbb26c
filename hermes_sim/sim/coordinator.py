"""Walks every request through its pipeline: arrivals, routing, hand-offs, transfers, ends.

Python touches a request a fixed number of times per stage; what happens inside the engines is compiled (sim/steps.py).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hermes_sim.sim.admission import Admission
from hermes_sim.sim.advance import run_until
from hermes_sim.sim.attempts import Attempts
from hermes_sim.sim.autoscaler import Autoscaler
from hermes_sim.sim.bulk_arrivals import can_be_laid_out, push_all_arrivals
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.disaggregated import HandOver
from hermes_sim.sim.dispatch import Dispatch
from hermes_sim.sim.embeddings import Embeddings
from hermes_sim.sim.ends import Ends
from hermes_sim.sim.exact_steps import ExactSteps
from hermes_sim.sim.fleet import Fleet
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.front_door import door_of
from hermes_sim.sim.front_end import FrontEnd
from hermes_sim.sim.hedges import hedges_of
from hermes_sim.sim.incidents import Incidents
from hermes_sim.sim.kv_retrieval import Retrievals
from hermes_sim.sim.kv_stores import build_kv_stores
from hermes_sim.sim.lower import ARRIVALS_AT_A_TIME, Lowered
from hermes_sim.sim.patience import PatientClients
from hermes_sim.sim.power_caps import PowerCaps
from hermes_sim.sim.progress import PROGRESS_INTERVAL_S, Progress, ProgressReport
from hermes_sim.sim.python_policy import PythonPolicies
from hermes_sim.sim.ranks import ARRIVAL, HAND_OFF, SCHEDULING
from hermes_sim.sim.recall import Recall
from hermes_sim.sim.retries import Retries
from hermes_sim.sim.so_far import Lookout, StopWhen
from hermes_sim.sim.speeds import Speeds
from hermes_sim.sim.status import FINISHED, UNFINISHED
from hermes_sim.sim.step_log import StepLog
from hermes_sim.sim.step_traffic import StepTraffic
from hermes_sim.sim.tokenizing import Tokenizing
from hermes_sim.sim.traffic import TrafficSource
from hermes_sim.sim.visits import Visits
from hermes_sim.state.arrays import GRANTED, NEED_SCHEDULE, WATCHED


class Coordinator:
    """One run. Construct, `run()`, then read `lowered.state` and the arrays here."""

    def __init__(
        self,
        lowered: Lowered,
        progress: Progress | None = None,
        *,
        steps: bool = False,
        stop_when: StopWhen | None = None,
    ) -> None:
        """`steps`: log every step and decision, one event per step. `stop_when`: asked now and then whether the run may
        be left; of runs in which requests are taken back or sent again it is not."""
        self.lowered = lowered
        self.state = lowered.state
        self.handle = lowered.state.handle
        self.clock = Clock()
        self.is_exact = lowered.scenario.exact_steps or steps
        traffic = StepTraffic(lowered, self.clock, is_exact=self.is_exact) if lowered.shared_links.listeners else None
        self.flows = Flows(self.clock, lowered.network.links, lowered.network, traffic)
        self.front_end = FrontEnd(lowered)
        self.status = np.full(lowered.requests.num_requests, UNFINISHED, np.int8)
        """[num_requests] of sim/status.py."""
        self.row_transfer_s = np.zeros(lowered.num_visits)
        self.row_link_energy_j = np.zeros(lowered.num_visits)
        self.step_log = StepLog(lowered) if steps else None
        self.traffic = TrafficSource(self.clock, lowered.requests, self._on_arrival)
        self.arrival_s = self.traffic.arrival_s
        self.fleet = Fleet(self) if lowered.scenario.cluster.can_change else None
        self.speeds = Speeds(lowered.state, lowered.replicas)
        self.attempts = Attempts()
        self.dispatch = Dispatch(self)
        self.hand_over = HandOver(self, self.flows)
        encodes = any(stage.encoded_by for plan in lowered.pipelines for stage in plan.stages)
        self.embeddings = Embeddings(self, self.flows) if encodes else None
        stores = build_kv_stores(lowered, self.flows, self.row_link_energy_j)
        self.retrievals = Retrievals(self, self.flows, stores) if stores is not None else None
        self.admission = Admission(self)
        self.tokenizing = Tokenizing(self)
        self.visits = Visits(self)
        self.ends = Ends(self)
        self.retries = Retries(self)
        self.recall = Recall(self)
        self.hedges = hedges_of(self)
        self.front_door = door_of(self)
        self._patience = PatientClients(self) if lowered.scenario.workload.any_patience else None
        self._progress = ProgressReport(progress, self._now_s, self._counts)
        watched = stop_when is not None and lowered.requests.num_requests > 0 and not lowered.scenario.follows_requests
        self._lookout = Lookout(self, stop_when) if watched and stop_when is not None else None
        self._policies = PythonPolicies(lowered) if lowered.state.python_policy.any() else None
        self._exact = ExactSteps(self.clock, self.handle, self._after_act) if self.is_exact else None
        self._is_laid_out = False
        if self.is_exact:
            return
        if not (lowered.scenario.follows_requests or self.front_end.any_tokenizers or self.admission.any_sorted):
            self._is_laid_out = can_be_laid_out(lowered, self.admission.capacity)
        if not self._is_laid_out and self._is_watched():
            self.clock.before_step = self._bring_up_to_head

    # ----- the run

    def run(self) -> None:
        """Until nothing is left to happen. Raises SimulationError if requests are stuck, RunStopped if asked to."""
        if self.fleet is not None:
            Incidents(self, self.fleet).start()
            PowerCaps(self).start()
            for engine in self.lowered.scenario.cluster.engines:
                if engine.autoscaling is not None:
                    Autoscaler(self, self.fleet, engine.name, engine.autoscaling).start()
        if self._is_laid_out:
            lookout = self._lookout
            at_a_time = ARRIVALS_AT_A_TIME if lookout is None else min(lookout.every, ARRIVALS_AT_A_TIME)
            pushed = None if lookout is None else lookout.laid_out
            push_all_arrivals(self.lowered, self._progress.report, at_a_time=at_a_time, pushed=pushed)
        else:
            self.traffic.start()
            self.clock.run()
        self._drain()
        self.ends.close()
        self._progress.report(force=True)

    def _on_arrival(self, request: int) -> None:
        time_s = float(self.clock.now)
        lowered = self.lowered
        if self.front_door is not None and not self.front_door.takes_in(request, time_s):
            return
        if self._patience is not None:
            self._patience.arrived(request, time_s)
        for place in lowered.pipelines[lowered.request_pipeline[request]].roots:
            self.visits.start(request, place, time_s, ARRIVAL)
        if self._lookout is not None:
            self._lookout.arrived()
        self._progress.report()

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

    # ----- what engines say

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

    def _on_granted(self, event: Any) -> None:
        """An engine has reserved blocks for a visit that waited for them."""
        if self.retrievals is not None and self.retrievals.waits(event.subject):
            self.retrievals.on_granted(event.subject)
        else:
            self.hand_over.on_granted(event.subject, float(self.clock.now))

    def _on_done(self, event: Any) -> None:
        """A watched visit has ended in an engine."""
        row = event.subject
        if np.isnan(self.state.row_finish_s[row]):  # taken back since
            return
        time_s, request = float(self.clock.now), int(self.state.row_request[row])
        if self.retries.is_over(row, time_s):
            return
        if self.hedges is not None:
            row = self.hedges.answered(row, time_s)
            if row is None:
                return
        place = int(self.lowered.row_stage[row])
        if self.hedges is not None:
            stages = self.lowered.pipelines[self.lowered.request_pipeline[request]].stages
            self.hedges.learn(stages[place], row, time_s)
        self.ends.end_visit(request, place, time_s, HAND_OFF)

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

    # ----- results and progress

    def on_s(self, duration_s: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[num_engines] seconds of the run that each was paid for and drew power."""
        if self.fleet is None:
            return np.full(len(self.lowered.replicas), duration_s)
        return self.fleet.on_s(duration_s)

    def up_s(self, edges_s: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[num_engines, num_intervals] of each interval that each took requests."""
        if self.fleet is None:
            return np.tile(np.diff(edges_s), (len(self.lowered.replicas), 1))
        return self.fleet.up_s(edges_s)

    @property
    def is_rejected(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[num_requests]"""
        return np.asarray((self.status != FINISHED) & (self.status != UNFINISHED))

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
