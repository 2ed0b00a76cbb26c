"""One SimPy event per begin and end of a step: the slow twin that production must equal to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hermes_sim.sim.advance import act, next_action
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.ranks import SCHEDULING, STEP_DONE


class ExactSteps:
    """Keeps the next begin or end of every group of engines on the clock."""

    def __init__(self, clock: Clock, handle: Any, after_act: Callable[[int], None]) -> None:
        """`after_act(group)` is called after each begin and each end."""
        self._clock = clock
        self._handle = handle
        self._after_act = after_act
        self._planned: dict[int, tuple[float, int]] = {}
        self._versions: dict[int, int] = {}

    def plan(self, group: int) -> None:
        """Put the group's next action into the queue, unless it stands there."""
        time_s, begins = next_action(self._handle, group)
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
                act(self._handle, group)
                self._after_act(group)
                self.plan(group)

        rank = SCHEDULING if begins else STEP_DONE
        self._clock.at(action[0], rank, on_time, engine=group)
