"""Replicas that come and go with the load, and the weights that they load when they come."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.hardware.topology import Endpoint
from hermes_sim.models.parameters import weight_bytes
from hermes_sim.scenario.autoscaling import Autoscaling
from hermes_sim.sim.fleet import DRAINING, STARTING, UP, Fleet, Key
from hermes_sim.sim.missed_ttft import MissedTtft
from hermes_sim.sim.ranks import CONTROL, TIMER

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class Autoscaler:
    """The replicas of one engine."""

    def __init__(self, coordinator: Coordinator, fleet: Fleet, engine: str, scaling: Autoscaling) -> None:
        self._coordinator = coordinator
        self._fleet = fleet
        self._scaling = scaling
        self._keys = fleet.replicas_of(engine)
        self._below_since_s: float | None = None
        self._missed = MissedTtft(coordinator) if scaling.metric == "missed_ttft" else None

    def start(self) -> None:
        """What runs when the run begins, and the first look."""
        running = max(self._scaling.start_replicas or 1, self._scaling.least(0.0))
        for key in self._keys[running:]:
            self._fleet.switch_off(key, 0.0)
        self._look_at(self._scaling.interval_s)

    def _look_at(self, time_s: float) -> None:
        def on_time(event: Any) -> None:
            if self._coordinator.ends.num_open > 0:
                self._look(time_s)

        first = int(self._fleet.members[self._keys[0]][0])
        self._coordinator.clock.at(time_s, TIMER, on_time, engine=first)

    def _look(self, time_s: float) -> None:
        """A replica more, or one fewer, or the rest of those that have ended all they had."""
        scaling, fleet = self._scaling, self._fleet
        self._switch_off(time_s)
        live = [key for key in self._keys if fleet.status(key) == UP]
        coming = [key for key in self._keys if fleet.status(key) == STARTING]
        load = self._load(live, time_s)
        least = scaling.least(time_s)
        if len(live) + len(coming) < least:
            for _ in range(least - len(live) - len(coming)):
                self._one_more(time_s)
        elif load > scaling.scale_up_above and not coming:
            self._one_more(time_s)
        is_below = load < scaling.scale_down_below
        since_s = self._below_since_s
        self._below_since_s = (time_s if since_s is None else since_s) if is_below else None
        if is_below and since_s is not None and time_s - since_s >= scaling.scale_down_after_s:
            if len(live) > least:
                fleet.drain(live[-1], time_s)
            self._below_since_s = None
        self._look_at(time_s + scaling.interval_s)

    def _load(self, live: list[Key], time_s: float) -> float:
        """Mean over the replicas that take requests; what waits for a replica counts too."""
        if not live:
            return np.inf if self._fleet.any_waiting else 0.0
        if self._missed is not None:
            return self._missed.frac(time_s - self._scaling.interval_s, time_s)
        engines = np.concatenate([self._fleet.members[key] for key in live])
        state = self._coordinator.state
        self._coordinator.dispatch.bring_up(engines, time_s, TIMER)
        inside = state.load_tokens if self._scaling.metric == "outstanding_tokens" else state.load_requests
        return float(inside[engines].sum()) / len(live)

    def _one_more(self, time_s: float) -> None:
        """A replica that drains comes back at once; else one that is off starts and loads its weights."""
        fleet = self._fleet
        for key in self._keys:
            if fleet.status(key) == DRAINING:
                fleet.bring_up(key, time_s)
                return
        for key in self._keys:
            if fleet.can_start(key):
                fleet.start(key, time_s)
                ready_s = time_s + self._scaling.start_time_s
                first = int(fleet.members[key][0])
                self._coordinator.clock.at(ready_s, CONTROL, partial(self._load_weights, key), engine=first)
                return

    def _load_weights(self, key: Key, event: Any) -> None:
        """From where they lie to the replica's devices, beside whatever else crosses those links."""
        coordinator = self._coordinator
        if coordinator.ends.num_open == 0:
            return
        replicas = [coordinator.lowered.replicas[e] for e in self._fleet.members[key].tolist()]
        model, weights_on = replicas[0].model, self._scaling.weights_on
        if weights_on is None or model is None:
            self._arrived(key, float(coordinator.clock.now))
            return
        targets = tuple(endpoint for replica in replicas for endpoint in replica.endpoints)
        source = Endpoint(targets[0].node_group, targets[0].node_index, weights_on, 0)
        route = coordinator.lowered.network.group_route((source,), targets)
        coordinator.flows.start(route, weight_bytes(model), lambda arrived_s: self._arrived(key, arrived_s))

    def _arrived(self, key: Key, time_s: float) -> None:
        """The replica is ready, unless it has failed meanwhile."""
        if self._fleet.status(key) == STARTING:
            self._fleet.bring_up(key, time_s)

    def _switch_off(self, time_s: float) -> None:
        """Replicas that drain and hold nothing any more."""
        state = self._coordinator.state
        for key in self._keys:
            members = self._fleet.members[key]
            if self._fleet.status(key) != DRAINING:
                continue
            self._coordinator.dispatch.bring_up(members, time_s, TIMER)
            if state.load_requests[members].sum() == 0:
                self._fleet.switch_off(key, time_s)
