"""All turns of a session to one engine; requests without a session to the one with the fewest tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.routing.least import least_tokens
from hermes_sim.routing.router import Router
from hermes_sim.state.hashes import mix


@compiled
def choose(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """By a hash of the session."""
    session = state.content_session[state.row_request[row]]
    if session < 0:
        return least_tokens(state, candidates, row, turn, draw, options)
    return candidates[np.int64(mix(np.uint64(session), np.uint64(1)) % np.uint64(candidates.size))]


ROUTER = Router(choose, reads_loads=True)
