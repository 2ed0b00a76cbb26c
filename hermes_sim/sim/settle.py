"""A run of decode-only steps is over, or somebody wants to know: the members' own counters catch up with its steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.clients import charge_output


@compiled
def settle(state: Any, e: int) -> None:
    """The run is over: the members' own counters catch up."""
    ticks = state.stretch_ticks[e]
    if ticks < 0:
        return
    charge_ticks(state, e)
    for place in range(state.stretch_number[e]):
        slot = np.int64(state.running[e, place])
        state.slot_computed[e, slot] += ticks
        state.slot_done[e, slot] += ticks
        state.row_generated[state.slot_row[e, slot]] += ticks
    state.stretch_ticks[e] = -1


@compiled
def charge_ticks(state: Any, e: int) -> None:
    """Clients' counters catch up with the tokens of an open run."""
    ticks = state.stretch_ticks[e] - state.stretch_charged[e]
    if state.stretch_ticks[e] < 0 or ticks == 0:
        return
    for place in range(state.stretch_number[e]):
        charge_output(state, e, np.int64(state.slot_row[e, state.running[e, place]]), ticks)
    state.stretch_charged[e] = state.stretch_ticks[e]
