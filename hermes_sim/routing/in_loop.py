"""All shipped routers by number: compiled arrivals (sim/bulk_arrivals.py) choose without Python."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.routing import heavy_light, least, power_of_two, prefix_aware, random_choice, round_robin
from hermes_sim.routing import session_affinity as affinity
from hermes_sim.routing.router import Router

IN_LOOP: tuple[Router, ...] = (
    round_robin.ROUTER,
    least.LEAST_TOKENS,
    least.LEAST_REQUESTS,
    least.LEAST_TOKENS_LEFT,
    least.LEAST_KV,
    heavy_light.ROUTER,
    power_of_two.ROUTER,
    prefix_aware.ROUTER,
    random_choice.ROUTER,
    affinity.ROUTER,
)
"""A router's place is its number. One that is not here is called from Python, arrival by arrival."""


@compiled
def choose_by_number(state: Any, number: int, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    """What the router of that number chooses."""
    if number == 0:
        return round_robin.choose(state, candidates, row, turn, draw, options)
    if number == 1:
        return least.least_tokens(state, candidates, row, turn, draw, options)
    if number == 2:
        return least.least_requests(state, candidates, row, turn, draw, options)
    if number == 3:
        return least.least_tokens_left(state, candidates, row, turn, draw, options)
    if number == 4:
        return least.least_kv(state, candidates, row, turn, draw, options)
    if number == 5:
        return heavy_light.choose(state, candidates, row, turn, draw, options)
    if number == 6:
        return power_of_two.choose(state, candidates, row, turn, draw, options)
    if number == 7:
        return prefix_aware.choose(state, candidates, row, turn, draw, options)
    if number == 8:
        return random_choice.choose(state, candidates, row, turn, draw, options)
    return affinity.choose(state, candidates, row, turn, draw, options)
