"""The engine that would have the fewest tokens to process if the request came, its cached prefix counted out.

With equal loads the longest cached prefix wins; a hot cache loses once its queue outweighs the saving.
"""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.routing.router import Router
from hermes_sim.state.arrays import TOKENS
from hermes_sim.state.blocks import count_hits


@compiled
def prefix_hit_tokens(state: Any, e: int, row: int) -> int:
    """Prompt tokens of a visit that this engine's prefix cache holds now."""
    if state.engine_kind[e] != TOKENS:
        return 0
    num_hits, _ = count_hits(state, e, row, state.row_prompt[row])
    return num_hits * state.block_tokens[e]


@compiled
def choose(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    best = candidates[0]
    best_tokens = state.load_tokens[best] - prefix_hit_tokens(state, best, row)
    for e in candidates[1:]:
        tokens = state.load_tokens[e] - prefix_hit_tokens(state, e, row)
        if tokens < best_tokens:
            best = e
            best_tokens = tokens
    return best


ROUTER = Router(choose, reads_loads=True)
