"""Visits at the tokenisers before they join the line of their engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hermes_sim.sim.plain import plain
from hermes_sim.sim.ranks import ARRIVAL

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

TOKENIZED = 1
"""Kind of an arrival's event: after the requests that arrive at the same time."""


class Tokenizing:
    """Sends visits to the workers of the engine chosen for them, and from there to its line."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._state = coordinator.state
        self._front_end = coordinator.front_end
        self._num_image_tokens = coordinator.lowered.requests.num_image_tokens
        self._prompt = plain(coordinator.state.row_prompt)
        self._inside: dict[int, int] = {}
        """Row of a prompt at the tokenisers -> its engine."""

    def is_first(self, engine: int, row: int, time_s: float) -> bool:
        """Send the visit to the engine's tokenisers, from where it joins the line; False: it has its tokens at once."""
        coordinator, state = self._coordinator, self._state
        ready_s = self.ready_at_s(engine, row, row, time_s)
        if ready_s == time_s:
            return False
        self.wait(engine, row, row, ready_s, TOKENIZED, lambda at_s: coordinator.visits.push(
            engine, int(state.first_queue[engine]), row, at_s, ARRIVAL
        ))  # fmt: skip
        return True

    def wait(
        self, engine: int, row: int, prompt_row: int, ready_s: float, kind: int, go_on: Callable[[float], None]
    ) -> None:
        """`go_on(ready_s)` is called then; until then routers see the prompt as a load of the engine."""
        coordinator = self._coordinator
        coordinator.dispatch.count_load(engine, prompt_row, 1)
        self._inside[prompt_row] = engine

        def on_tokens(time_s: float) -> None:
            del self._inside[prompt_row]
            coordinator.dispatch.count_load(engine, prompt_row, -1)  # what comes next counts it again
            go_on(time_s)

        guarded = coordinator.attempts.guard(row, on_tokens)
        coordinator.clock.at(ready_s, ARRIVAL, lambda event: guarded(ready_s), kind=kind, engine=engine, row=row)

    def forget(self, rows: Sequence[int]) -> None:
        """Nobody waits for the tokens of these visits any more; the worker goes on with them."""
        for row in rows:
            engine = self._inside.pop(row, None)
            if engine is not None:
                self._coordinator.dispatch.count_load(engine, row, -1)

    def fail(self, engine: int, time_s: float) -> list[int]:
        """The front end of an engine is gone with it: rows of the prompts that were there; its workers start anew."""
        lost = [row for row, there in self._inside.items() if there == engine]
        for row in lost:
            del self._inside[row]
        self._front_end.restart(engine, time_s)
        return lost

    def ready_at_s(self, engine: int, row: int, prompt_row: int, time_s: float) -> float:
        """When the tokens of a prompt are there; a visit `row` waits for them."""
        if not self._front_end.any_tokenizers:
            return time_s
        num_tokens = self._prompt[prompt_row] - self._without_text(prompt_row)
        return self._front_end.tokenized_at_s(engine, row, num_tokens, time_s)

    def _without_text(self, row: int) -> int:
        """Of the prompt's tokens, those that no text becomes."""
        if self._num_image_tokens is None:
            return 0
        return min(int(self._num_image_tokens[self._state.row_request[row]]), int(self._prompt[row]))
