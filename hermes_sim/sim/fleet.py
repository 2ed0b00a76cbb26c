"""Which replicas take requests: up, draining, failed, off, starting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.advance import fail
from hermes_sim.sim.ranks import FAILURE

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Key = tuple[str, int]
"""(engine of the cluster file, number of the replica)"""

UP, DRAINING, FAILED, OFF, STARTING = range(5)
"""Takes requests; ends what it has; has lost all; costs nothing; comes up."""


class Fleet:
    """The states of all replicas over the run. Only made where something can change them."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        number = len(coordinator.lowered.replicas)
        self._status = np.full(number, UP)
        self._up_since_s = np.zeros(number)
        self._ups: list[tuple[int, float, float]] = []
        """(engine, from, to) times that are over in which each took requests."""
        self._on_since_s = np.zeros(number)
        self._on_s = np.zeros(number)
        self._waiting: list[Callable[[float], None]] = []
        self._num_failures: dict[Key, int] = {}
        """Failures that a replica has not recovered from: its own, its node's, its devices'."""
        self.members: dict[Key, IntArray] = {}
        """Replica -> its ranks."""
        for e, replica in enumerate(coordinator.lowered.replicas):
            known = self.members.get((replica.engine.name, replica.number), np.zeros(0, np.int64))
            self.members[replica.engine.name, replica.number] = np.append(known, e)

    # ----- what others ask

    def usable(self, candidates: IntArray) -> IntArray:
        """Those of the engines that take requests."""
        return np.asarray(candidates[self._status[candidates] == UP])

    def has_failed(self, e: int) -> bool:
        """Whether an engine has thrown everybody out and has not come back."""
        return bool(self._status[e] == FAILED)

    def status(self, key: Key) -> int:
        """Of a replica, all ranks together."""
        return int(self._status[self.members[key][0]])

    def can_start(self, key: Key) -> bool:
        """Whether nothing keeps a replica that is off from coming up."""
        return self.status(key) == OFF and not self._num_failures.get(key)

    def replicas_of(self, engine: str, replica: int | None = None) -> list[Key]:
        """One replica of an engine, or all of them."""
        return [key for key in self.members if key[0] == engine and replica in (None, key[1])]

    @property
    def any_waiting(self) -> bool:
        """Whether visits wait for a replica."""
        return bool(self._waiting)

    def wait(self, go_on: Callable[[float], None]) -> None:
        """Nobody takes it: `go_on(time_s)` is called when the next replica comes up."""
        self._waiting.append(go_on)

    def on_s(self, duration_s: float) -> FloatArray:
        """[num_engines] seconds that each was paid for."""
        return np.where(self._status == OFF, self._on_s, self._on_s + np.maximum(duration_s - self._on_since_s, 0.0))

    def up_s(self, edges_s: FloatArray) -> FloatArray:
        """[num_engines, num_intervals] of each interval that each took requests."""
        found = np.zeros((len(self._status), len(edges_s) - 1))
        still = [(int(e), self._up_since_s[e], np.inf) for e in np.flatnonzero(self._status == UP)]
        for e, from_s, to_s in (*self._ups, *still):
            found[e] += np.maximum(np.minimum(edges_s[1:], to_s) - np.maximum(edges_s[:-1], from_s), 0.0)
        return found

    # ----- changes

    def _set(self, key: Key, status: int, time_s: float) -> None:
        members = self.members[key]
        if self.status(key) == UP:
            self._ups += [(e, float(self._up_since_s[e]), time_s) for e in members.tolist()]
        self._status[members] = status
        if status == UP:
            self._up_since_s[members] = time_s

    def fail(self, keys: Sequence[Key], time_s: float) -> list[int]:
        """Replicas lose all that they hold, at once; returns the rows of those who were there."""
        coordinator = self._coordinator
        lost: list[int] = []
        for key in keys:
            members = self.members[key]
            self._num_failures[key] = self._num_failures.get(key, 0) + 1
            if self.status(key) in (FAILED, OFF):
                continue
            self._set(key, FAILED, time_s)
            for e in members.tolist():
                lost += fail(coordinator.handle, e, time_s, FAILURE, self._most_rows(e)).tolist()
                lost += coordinator.dispatch.lose(e)
                coordinator.front_end.restart(e, time_s)
                coordinator.after_push(e)
        return lost

    def _most_rows(self, e: int) -> int:
        """Rows that can be in an engine, or have a promise there; a step that ends before may fork some more."""
        state = self._coordinator.state
        first, last = int(state.first_queue[e]), int(state.first_queue[e] + state.num_queues[e])
        waiting = int(state.queue_length[first:last].sum())
        slots = state.slot_row.shape[1]
        in_lanes = int(np.prod(state.lane_jobs.shape[1:]))
        return int(state.load_requests[e]) + waiting + 2 * int(slots) + in_lanes

    def repair(self, keys: Sequence[Key], time_s: float) -> None:
        """One failure less; replicas that have recovered from all take requests."""
        for key in keys:
            self._num_failures[key] -= 1
            if self._num_failures[key] == 0 and self.status(key) == FAILED:
                self.bring_up(key, time_s)

    def drain(self, key: Key, time_s: float) -> bool:
        """A replica takes nothing new, and ends what it has; False: it takes nothing as it is."""
        if self.status(key) != UP:
            return False
        self._set(key, DRAINING, time_s)
        return True

    def bring_up(self, key: Key, time_s: float) -> None:
        """The replica takes requests; whoever waited for one goes on."""
        self._set(key, UP, time_s)
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on(time_s)

    def start(self, key: Key, time_s: float) -> None:
        """A replica that was off comes up: it is paid for from now on."""
        members = self.members[key]
        self._set(key, STARTING, time_s)
        self._on_since_s[members] = time_s

    def switch_off(self, key: Key, time_s: float) -> None:
        """A replica that has nothing left costs nothing any more."""
        members = self.members[key]
        self._set(key, OFF, time_s)
        self._on_s[members] += time_s - self._on_since_s[members]
