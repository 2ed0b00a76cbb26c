"""The engine with the least of something; ties go to the first in the cluster file."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.routing.router import Router
from hermes_sim.state.arrays import TOKENS


@compiled
def least_requests(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """Fewest requests inside, waiting or running."""
    best = candidates[0]
    for e in candidates[1:]:
        if state.load_requests[e] < state.load_requests[best]:
            best = e
    return best


@compiled
def least_tokens(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """Fewest tokens still to be processed: what is left of prompts and outputs inside."""
    best = candidates[0]
    for e in candidates[1:]:
        if state.load_tokens[e] < state.load_tokens[best]:
            best = e
    return best


@compiled
def least_tokens_left(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """Fewest output tokens still to be generated."""
    best = candidates[0]
    for e in candidates[1:]:
        if state.load_output_tokens[e] < state.load_output_tokens[best]:
            best = e
    return best


@compiled
def kv_used_frac(state: Any, e: int) -> float:
    """Share of the KV blocks that have an owner; engines without KV count their requests."""
    if state.engine_kind[e] == TOKENS and state.num_blocks[e] > 0:
        return (state.num_blocks[e] - state.num_free_blocks[e]) / state.num_blocks[e]
    return float(state.load_requests[e])


@compiled
def least_kv(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """Smallest share of KV blocks in use; ties: fewest tokens to process."""
    best = candidates[0]
    for e in candidates[1:]:
        used, best_used = kv_used_frac(state, e), kv_used_frac(state, best)
        if used < best_used or (used == best_used and state.load_tokens[e] < state.load_tokens[best]):
            best = e
    return best


LEAST_REQUESTS = Router(least_requests, reads_loads=True)
LEAST_TOKENS = Router(least_tokens, reads_loads=True)
LEAST_TOKENS_LEFT = Router(least_tokens_left, reads_loads=True)
LEAST_KV = Router(least_kv, reads_loads=True)
