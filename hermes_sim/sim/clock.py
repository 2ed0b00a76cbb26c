"""The SimPy environment: events at absolute times, ordered at equal times by rank, never by insertion."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy
from simpy.core import EmptySchedule
from simpy.events import Event

from hermes_sim.sim.ranks import SCHEDULING, TIMER

Order = tuple[int, int, int, int]
"""(rank, kind, engine, row)"""


class Call(Event):
    """An event that calls one function, with the event as argument."""

    def __init__(self, clock: Clock, function: Callable[[Any], None], subject: int) -> None:
        self.env = clock
        self.callbacks = [function]
        self._ok = True
        self._value = None
        self.subject = subject


class Clock(simpy.Environment):
    """Environment whose events have absolute times; engines are brought up to the head of its queue before each one."""

    def __init__(self) -> None:
        super().__init__()
        self.before_step: Callable[[], None] | None = None
        self.num_events = 0
        self.rank = SCHEDULING
        """Of the event at hand."""

    def at(
        self,
        time_s: float,
        rank: int,
        function: Callable[[Any], None],
        *,
        kind: int = 0,
        engine: int = 0,
        row: int = 0,
    ) -> None:
        """Call `function(event)` at time_s; `event.subject` is the row. Ties go by (rank, kind, engine, row)."""
        self._push(time_s, (rank, kind, engine, row), Call(self, function, row))

    def schedule(self, event: Event, priority: int = 1, delay: float = 0) -> None:
        """SimPy's own events (processes, timeouts) are timers among the ranks."""
        self._push(self._now + delay, (TIMER, priority, 0, 0), event)

    def _push(self, time_s: float, order: Order, event: Event) -> None:
        assert time_s >= self._now, "law 4: the clock never goes back"
        queue: Any = self._queue  # SimPy compares entries, and its own priorities are plain numbers
        heappush(queue, (time_s, order, next(self._eid), event))

    @property
    def head(self) -> tuple[float, int] | None:
        """(time, rank) of the next event."""
        if not self._queue:
            return None
        entry: Any = self._queue[0]
        return float(entry[0]), int(entry[1][0])

    def step(self) -> None:
        """Bring the engines to the head of the queue, which may put earlier events into it; then the next event."""
        if self.before_step is not None:
            self.before_step()
        if not self._queue:
            raise EmptySchedule
        self.num_events += 1
        entry: Any = self._queue[0]
        self.rank = entry[1][0]
        super().step()
