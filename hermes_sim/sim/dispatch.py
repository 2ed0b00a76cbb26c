"""Which engine a visit goes to: the engines that take requests, their loads at this moment, the router's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.advance import pull_all
from hermes_sim.sim.plain import plain
from hermes_sim.sim.plans import NO_ENGINE, StagePlan
from hermes_sim.state.sequences import final_outputs

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

IntArray = npt.NDArray[np.int64]


class Dispatch:
    """Routers at work, with the turns they have taken."""

    def __init__(self, coordinator: Coordinator) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._state, self._handle = coordinator.state, coordinator.handle
        self._fleet = coordinator.fleet
        self._is_exact = coordinator.is_exact
        self._pipeline_of = plain(lowered.request_pipeline)
        self._draws = plain(lowered.draws)
        self._came_from = self._state.row_came_from if (self._state.row_came_from >= 0).any() else None
        self._turns = [[0] * len(plan.stages) for plan in lowered.pipelines]

    def choose(self, request: int, plan: StagePlan, place: int, row: int, time_s: float, rank: int) -> int:
        """The router's choice among the engines of a stage, on their loads at this moment; NO_ENGINE: all are away."""
        if self._came_from is not None and self._came_from[row] >= 0:
            return int(self._state.row_engine[self._came_from[row]])  # where its KV was left
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
        state = self._state if router.in_python else self._handle
        return int(router.choose(state, candidates, row, turn, self._draws[row], plan.options))

    def bring_up(self, engines: IntArray, time_s: float, rank: int) -> None:
        """Engines to the present, so that their loads can be read."""
        if not self._is_exact and len(engines) > 0:
            pull_all(self._handle, engines, time_s, rank)

    def count_load(self, engine: int, row: int, sign: int) -> None:
        """What a push adds to an engine's load: the prompt, and an output token a step after it."""
        state = self._state
        num_output = int(final_outputs(state, np.array([row]))[0])
        state.load_requests[engine] += sign
        state.load_output_tokens[engine] += sign * num_output
        state.load_tokens[engine] += sign * (int(state.row_prompt[row]) + max(num_output - 1, 0))

    def wait_for_engine(self, go_on: Callable[[float], None]) -> None:
        """All engines that could take a visit are away: `go_on(time_s)` is called when the next comes up."""
        assert self._fleet is not None
        self._fleet.wait(go_on)
