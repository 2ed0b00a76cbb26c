"""Heavy and light requests apart, so that short ones do not wait behind long ones (HERMES, arXiv 2504.09775)."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.routing.router import HEAVY_THRESHOLD_TOKENS, LIGHT_SHARE, Router


@compiled
def choose(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """The first LIGHT_SHARE of the engines serve light requests, the others heavy ones; least tokens within."""
    number = candidates.size
    num_light = min(max(int(options[LIGHT_SHARE] * number + 0.5), 1), max(number - 1, 1))
    heavy = state.row_prompt[row] >= options[HEAVY_THRESHOLD_TOKENS]
    first = num_light if heavy and number > 1 else 0
    last = number if heavy else num_light
    best = candidates[first]
    for place in range(first + 1, last):
        if state.load_tokens[candidates[place]] < state.load_tokens[best]:
            best = candidates[place]
    return best


ROUTER = Router(choose, reads_loads=True)
