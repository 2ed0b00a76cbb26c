"""What a run that cannot go on is waiting for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import SimulationError
from hermes_sim.sim.lower import Lowered

MOST_NAMED = 5
"""Requests that the message names."""


def refuse_waiting(lowered: Lowered, waiting: npt.NDArray[np.int64], ended: npt.NDArray[np.bool_]) -> None:
    """Law 9: raises SimulationError that says which request waits for what, if any does.

    `waiting`: requests that have not ended; `ended`: [num_visits].
    """
    if len(waiting) == 0:
        return
    reasons = []
    for request in waiting[:MOST_NAMED].tolist():
        rows = range(int(lowered.first_row[request]), int(lowered.first_row[request + 1]))
        row = next(row for row in rows if not ended[row])
        reasons.append(f"request {request} waits for {_what_holds(lowered, request, row)}")
    more = f" (and {len(waiting) - MOST_NAMED} more requests)" if len(waiting) > MOST_NAMED else ""
    raise SimulationError("the run cannot go on: " + "; ".join(reasons) + more)


def _what_holds(lowered: Lowered, request: int, row: int) -> str:
    state = lowered.state
    plan = lowered.pipelines[lowered.request_pipeline[request]]
    stage = plan.stages[int(lowered.row_stage[row])].stage
    engine = int(state.row_engine[row])
    if engine < 0:
        return f"stage '{stage.name}', which was never started"
    where = f"stage '{stage.name}' at {lowered.replicas[engine].name}"
    if stage.runs_on == "tokens":
        decides = ", and its policy in Python runs nothing" if state.python_policy[engine] else ""
        free, blocks = int(state.num_free_blocks[engine]), int(state.num_blocks[engine])
        return f"{where}, where {free} of {blocks} KV blocks are free{decides}"
    return where
