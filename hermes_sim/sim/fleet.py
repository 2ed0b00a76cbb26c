"""Which replicas take requests: outages, failures at random, maintenance, replicas that come and go with the load."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.hardware.topology import Endpoint
from hermes_sim.models.parameters import weight_bytes
from hermes_sim.scenario.availability import Autoscaling
from hermes_sim.sim.advance import fail
from hermes_sim.sim.ranks import CONTROL, FAILURE, TIMER

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

UP, DRAINING, FAILED, OFF, STARTING = range(5)
"""Takes requests; ends what it has; has lost all; costs nothing; comes up."""


class Fleet:
    """The states of all replicas over the run. Only made where something can change them."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._lowered = lowered = coordinator.lowered
        self._clock = coordinator.clock
        self._scenario = lowered.scenario
        number = len(lowered.replicas)
        self._status = np.full(number, UP)
        self._on_since_s = np.zeros(number)
        self._on_s = np.zeros(number)
        self._waiting: list[Callable[[float], None]] = []
        self._members: dict[tuple[str, int], IntArray] = {}
        """(engine of the cluster file, replica) -> its ranks."""
        for e, replica in enumerate(lowered.replicas):
            known = self._members.get((replica.engine.name, replica.number), np.zeros(0, np.int64))
            self._members[replica.engine.name, replica.number] = np.append(known, e)
        self._below_since_s: dict[str, float | None] = {}
        self._failure_draws = {key: stream(self._scenario.seed, f"failures {key[0]}", key[1]) for key in self._members}

    # ----- what the coordinator asks

    def usable(self, candidates: IntArray) -> IntArray:
        """Those of the engines that take requests."""
        return np.asarray(candidates[self._status[candidates] == UP])

    def wait(self, go_on: Callable[[float], None]) -> None:
        """Nobody takes it: `go_on(time_s)` is called when the next replica comes up."""
        self._waiting.append(go_on)

    def on_s(self, duration_s: float) -> FloatArray:
        """[num_engines] seconds that each was paid for."""
        return np.where(self._status == OFF, self._on_s, self._on_s + np.maximum(duration_s - self._on_since_s, 0.0))

    # ----- the run

    def start(self) -> None:
        """Everything that is known before the run."""
        availability = self._scenario.cluster.availability
        for outage in availability.outages:
            for key in self._replicas_of(outage.engine, outage.replica):
                fails = outage.kind == "failure"
                self._at(outage.at_s, FAILURE, self._fail if fails else self._drain, key, outage.lasts_s)
        for failures in availability.failures:
            for key in self._replicas_of(failures.engine, None):
                self._plan_failure(key, failures.mtbf_s, failures.repair_s)
        for engine in self._scenario.cluster.engines:
            if engine.autoscaling is not None:
                self._start_scaling(engine.name, engine.autoscaling)

    def _replicas_of(self, engine: str, replica: int | None) -> list[tuple[str, int]]:
        return [key for key in self._members if key[0] == engine and replica in (None, key[1])]

    def _at(self, time_s: float, rank: int, act: Callable[..., None], key: tuple[str, int], *values: Any) -> None:
        """Call act(key, time_s, *values) then, unless the run is over."""

        def on_time(event: Any) -> None:
            if self._coordinator.ends.num_open > 0:
                act(key, float(self._clock.now), *values)

        self._clock.at(time_s, rank, on_time, engine=int(self._members[key][0]))

    # ----- failures and maintenance

    def _plan_failure(self, key: tuple[str, int], mtbf_s: float, repair_s: float) -> None:
        draws = self._failure_draws[key]
        at_s = float(self._clock.now) + float(draws.exponential(mtbf_s))
        lasts_s = float(draws.exponential(repair_s))
        self._at(at_s, FAILURE, self._fail, key, lasts_s, (mtbf_s, repair_s))

    def _fail(
        self, key: tuple[str, int], time_s: float, lasts_s: float, again: tuple[float, float] | None = None
    ) -> None:
        """The replica loses all it holds; its requests are sent again when somebody has noticed."""
        members = self._members[key]
        if (self._status[members] == UP).all() or (self._status[members] == DRAINING).all():
            self._status[members] = FAILED
            for e in members.tolist():
                rows = fail(self._coordinator.handle, e, time_s, FAILURE, self._most_rows(e))
                self._coordinator.retries.send_again(rows, time_s)
                self._coordinator.after_push(e)
        self._at(time_s + lasts_s, CONTROL, self._repaired, key, again)

    def _most_rows(self, e: int) -> int:
        """Rows that can be in an engine."""
        state = self._coordinator.state
        first, last = int(state.first_queue[e]), int(state.first_queue[e] + state.num_queues[e])
        waiting = int(state.queue_length[first:last].sum())
        in_lanes = int(np.prod(state.lane_jobs.shape[1:]))
        return int(state.load_requests[e]) + waiting + int(state.num_running[e]) + in_lanes

    def _repaired(self, key: tuple[str, int], time_s: float, again: tuple[float, float] | None) -> None:
        if (self._status[self._members[key]] == FAILED).all():
            self._up(key, time_s)
        if again is not None:
            self._plan_failure(key, *again)

    def _drain(self, key: tuple[str, int], time_s: float, lasts_s: float) -> None:
        """Maintenance: takes nothing new until it is over."""
        members = self._members[key]
        if (self._status[members] == UP).all():
            self._status[members] = DRAINING
            self._at(time_s + lasts_s, CONTROL, self._drained, key)

    def _drained(self, key: tuple[str, int], time_s: float) -> None:
        if (self._status[self._members[key]] == DRAINING).all():
            self._up(key, time_s)

    def _up(self, key: tuple[str, int], time_s: float) -> None:
        """The replica takes requests; whoever waited for one goes on."""
        self._status[self._members[key]] = UP
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on(time_s)

    # ----- autoscaling

    def _start_scaling(self, engine: str, scaling: Autoscaling) -> None:
        running = scaling.start_replicas or scaling.min_replicas
        for key in self._replicas_of(engine, None)[running:]:
            self._status[self._members[key]] = OFF
        self._below_since_s[engine] = None
        self._at(scaling.interval_s, TIMER, self._scale, (engine, 0), scaling)

    def _scale(self, key: tuple[str, int], time_s: float, scaling: Autoscaling) -> None:
        """One look: a replica more, or one fewer, or the rest of those that have ended all they had."""
        engine = key[0]
        keys = self._replicas_of(engine, None)
        self._switch_off(keys, time_s)
        live = [one for one in keys if self._status[self._members[one][0]] == UP]
        coming = [one for one in keys if self._status[self._members[one][0]] == STARTING]
        load = self._load(live, time_s, scaling)
        if load > scaling.scale_up_above and not coming:
            self._one_more(keys, time_s, scaling)
        is_below = load < scaling.scale_down_below
        since_s = self._below_since_s[engine]
        self._below_since_s[engine] = (time_s if since_s is None else since_s) if is_below else None
        if is_below and since_s is not None and time_s - since_s >= scaling.scale_down_after_s:
            if len(live) > scaling.min_replicas:
                self._status[self._members[live[-1]]] = DRAINING
            self._below_since_s[engine] = None
        self._at(time_s + scaling.interval_s, TIMER, self._scale, key, scaling)

    def _load(self, live: list[tuple[str, int]], time_s: float, scaling: Autoscaling) -> float:
        """Mean over the replicas that take requests; what waits for a replica counts too."""
        if not live:
            return np.inf if self._waiting else 0.0
        engines = np.concatenate([self._members[key] for key in live])
        state = self._coordinator.state
        self._coordinator.dispatch.bring_up(engines, time_s, TIMER)
        inside = state.load_tokens if scaling.metric == "outstanding_tokens" else state.load_requests
        return float(inside[engines].sum()) / len(live)

    def _one_more(self, keys: list[tuple[str, int]], time_s: float, scaling: Autoscaling) -> None:
        """A replica that drains comes back at once; else one that is off starts and loads its weights."""
        for key in keys:
            if self._status[self._members[key][0]] == DRAINING:
                self._up(key, time_s)
                return
        for key in keys:
            members = self._members[key]
            if self._status[members[0]] == OFF:
                self._status[members] = STARTING
                self._on_since_s[members] = time_s
                self._at(time_s + scaling.start_time_s, CONTROL, self._load_weights, key, scaling)
                return

    def _load_weights(self, key: tuple[str, int], time_s: float, scaling: Autoscaling) -> None:
        """From where they lie to the replica's devices, beside whatever else crosses those links."""
        members = self._members[key]
        replicas = [self._lowered.replicas[e] for e in members.tolist()]
        model = replicas[0].model
        if scaling.weights_on is None or model is None:
            self._up(key, time_s)
            return
        targets = tuple(endpoint for replica in replicas for endpoint in replica.endpoints)
        source = Endpoint(targets[0].node_group, targets[0].node_index, scaling.weights_on, 0)
        route = self._lowered.network.group_route((source,), targets)
        self._coordinator.flows.start(route, weight_bytes(model), lambda arrived_s: self._up(key, arrived_s))

    def _switch_off(self, keys: list[tuple[str, int]], time_s: float) -> None:
        """Replicas that drain and hold nothing any more."""
        state = self._coordinator.state
        for key in keys:
            members = self._members[key]
            if self._status[members[0]] != DRAINING:
                continue
            self._coordinator.dispatch.bring_up(members, time_s, TIMER)
            if state.load_requests[members].sum() == 0:
                self._status[members] = OFF
                self._on_s[members] += time_s - self._on_since_s[members]
