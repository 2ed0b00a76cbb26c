"""What a routing policy is: one compiled function over the loads of the candidates, as they are at the arrival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Router:
    """A routing policy.

    `choose(state, candidates, row, turn, draw, options) -> engine`: candidates [num_candidates] int64 engine indices in
    order of the cluster file, row the visit, turn how many choices this stage has made, draw a uniform number in [0, 1)
    that belongs to the visit, options as in RoutingConfig (OPTIONS below).
    """

    choose: Callable[..., Any]
    reads_loads: bool
    """Whether the candidates must be brought to the present first."""
    in_python: bool = False
    """`state` is then the arrays (state/arrays.py EngineArrays), not the handle of compiled code."""


# Places in `options`.
HEAVY_THRESHOLD_TOKENS = 0
LIGHT_SHARE = 1
NUM_CHOICES = 2
