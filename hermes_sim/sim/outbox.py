"""What the engines tell the outside: visits that ended, blocks that were granted, steps that Python is to decide."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import DONE, WATCHED


@compiled
def emit(state: Any, time_s: float, kind: int, row: int) -> None:
    """An event for the outside."""
    place = state.outbox_count[0]
    state.outbox_time_s[place] = time_s
    state.outbox_kind[place] = kind
    state.outbox_row[place] = row
    state.outbox_count[0] = place + 1


@compiled
def close_visit(state: Any, e: int, row: int, time_s: float) -> None:
    """The visit has ended; whoever watches it is told."""
    state.row_finish_s[row] = time_s
    if state.row_flags[row] & WATCHED:
        state.num_watched[e] -= 1
        emit(state, time_s, DONE, row)
