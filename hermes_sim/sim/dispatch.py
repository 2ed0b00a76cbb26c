"""Which engine a visit goes to: the engines that take requests, their loads at this moment, the router's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self._expected: dict[int, int] = {}
        """Row of a prompt on its way to an engine, or at its tokenisers -> the engine."""
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

    def choose_other(self, plan: StagePlan, engine: int, row: int, time_s: float, rank: int) -> int | None:
        """The router's choice among the engines but one; None if there is no other. Takes no turn."""
        candidates = plan.candidates if self._fleet is None else self._fleet.usable(plan.candidates)
        candidates = candidates[candidates != engine]
        if len(candidates) == 0:
            return None
        if plan.router.reads_loads:
            self.bring_up(candidates, time_s, rank)
        state = self._state if plan.router.in_python else self._handle
        return int(plan.router.choose(state, candidates, row, 0, self._draws[row], plan.options))

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

    def expect(self, engine: int, row: int) -> None:
        """A prompt is on its way to an engine that was chosen for it: routers see its load from now on."""
        self._expected[row] = engine
        self.count_load(engine, row, 1)

    def arrives(self, row: int) -> None:
        """It is there: what comes next counts its load again."""
        self.count_load(self._expected.pop(row), row, -1)

    def forget(self, rows: Sequence[int]) -> None:
        """Nobody wants these visits any more, wherever they are on their way."""
        for row in rows:
            if row in self._expected:
                self.arrives(row)

    def lose(self, engine: int) -> list[int]:
        """The engine is gone, and its loads with it: rows of the prompts that were on their way."""
        lost = [row for row, target in self._expected.items() if target == engine]
        for row in lost:
            del self._expected[row]
        return lost

    def wait_for_engine(self, row: int, go_on: Callable[[float], None]) -> None:
        """All engines that could take a visit are away: `go_on(time_s)` is called when the next comes up."""
        assert self._fleet is not None
        self._fleet.wait(self._coordinator.attempts.guard(row, go_on))
