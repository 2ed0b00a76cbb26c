"""The less loaded of a few engines drawn at random (Mitzenmacher, IEEE TPDS 2001)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.routing.router import NUM_CHOICES, Router
from hermes_sim.state.hashes import mix


@compiled
def choose(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """Fewest requests inside among NUM_CHOICES distinct candidates."""
    number = candidates.size
    num_choices = min(int(options[NUM_CHOICES]), number)
    order = candidates.copy()
    bits = mix(np.uint64(int(draw * 4503599627370496.0)), np.uint64(0))
    best = order[0]
    for place in range(num_choices):
        bits = mix(bits, np.uint64(place))
        other = place + np.int64(bits % np.uint64(number - place))
        order[place], order[other] = order[other], order[place]
        if place == 0 or state.load_requests[order[place]] < state.load_requests[best]:
            best = order[place]
    return best


ROUTER = Router(choose, reads_loads=True)
