"""Visits at the tokenisers before they join the line of their engine."""

from __future__ import annotations

from collections.abc import Callable
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
        coordinator.dispatch.expect(engine, prompt_row)

        def on_tokens(time_s: float) -> None:
            coordinator.dispatch.arrives(prompt_row)
            go_on(time_s)

        guarded = coordinator.attempts.guard(row, on_tokens)
        coordinator.clock.at(ready_s, ARRIVAL, lambda event: guarded(ready_s), kind=kind, engine=engine, row=row)

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
