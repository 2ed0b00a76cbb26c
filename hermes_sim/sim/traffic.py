"""Who sends requests, and when: recorded or drawn arrivals, users in a closed loop, turns that follow a turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hermes_sim.sim.clock import Clock
from hermes_sim.sim.plain import plain
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.workload.requests import ClosedLoop, RequestTable


class TrafficSource:
    """Puts arrivals on the clock, one that is known at a time."""

    def __init__(self, clock: Clock, requests: RequestTable, on_arrival: Callable[[int], None]) -> None:
        """`on_arrival(request)` is called at the time of each arrival."""
        self.arrival_s = requests.arrival_s.copy()
        """[num_requests] filled in where the run decides."""
        self._clock = clock
        self._requests = requests
        self._on_arrival = on_arrival
        self._followers: dict[int, list[int]] = {}
        for request in np.flatnonzero(requests.previous >= 0).tolist():
            self._followers.setdefault(int(requests.previous[request]), []).append(request)
        self._next_of_loop = 0
        self._at_s = plain(self.arrival_s)

    def start(self) -> None:
        """The first arrivals."""
        requests = self._requests
        if requests.closed_loop is not None:
            self._next_of_loop = min(requests.closed_loop.concurrency, requests.num_requests)
            for request in range(self._next_of_loop):
                self._send_next_of_loop(requests.closed_loop, 0.0, request)
            return
        self._known = iter(np.flatnonzero(~np.isnan(requests.arrival_s)).tolist())
        self._send_next()

    def ended(self, request: int, time_s: float) -> None:
        """The client has seen the end of a request; whoever waited for it thinks, then sends the next."""
        requests = self._requests
        for turn in self._followers.get(request, ()):
            self._send_at(time_s + float(requests.think_s[turn]), turn)
        loop = requests.closed_loop
        if loop is not None and self._next_of_loop < requests.num_requests:
            following = self._next_of_loop
            self._next_of_loop += 1
            self._send_next_of_loop(loop, time_s, following)

    def _send_next_of_loop(self, loop: ClosedLoop, free_s: float, request: int) -> None:
        """A user is free since free_s: it thinks, and waits until the request is due."""
        at_s = free_s + float(loop.think_time_s[request])
        if loop.not_before_s is not None:
            at_s = max(at_s, float(loop.not_before_s[request]))
        self._send_at(at_s, request)

    def _send_next(self) -> None:
        request = next(self._known, None)
        if request is not None:
            self._clock.at(self._at_s[request], ARRIVAL, self._on_known, row=request)

    def _send_at(self, time_s: float, request: int) -> None:
        self._clock.at(time_s, ARRIVAL, self._on_time, row=request)

    def _on_known(self, event: Any) -> None:
        self._send_next()
        self._on_time(event)

    def _on_time(self, event: Any) -> None:
        self._at_s[event.subject] = float(self._clock.now)
        self._on_arrival(event.subject)
