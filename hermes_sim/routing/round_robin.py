"""In turn."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.routing.router import Router


@compiled
def choose(state: Any, candidates: Any, row: int, turn: int, draw: float, options: Any) -> int:
    return candidates[turn % candidates.size]


ROUTER = Router(choose, reads_loads=False)
