"""Whether the client of a request has seen a token of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.sim.plans import PipelinePlan
from hermes_sim.stages.decode import Decode

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


def seen_prefills(plan: PipelinePlan) -> list[int]:
    """Stages whose end brings a token that the client sees: prefills, but for those before notes of the system."""
    found = []
    for place, stage in enumerate(plan.stages):
        if getattr(stage.stage, "kind", "") != "prefill":
            continue
        decode = None if stage.decode is None else plan.stages[stage.decode].stage
        if not isinstance(decode, Decode) or decode.writes != "note":
            found.append(place)
    return found


def has_first_token(coordinator: Coordinator, request: int, time_s: float, rank: int) -> bool:
    """By now, the engines brought to the present; the way of the token to the client is left out."""
    lowered, state = coordinator.lowered, coordinator.state
    plan = lowered.pipelines[lowered.request_pipeline[request]]
    rows = [int(lowered.first_row[request]) + place for place in seen_prefills(plan)]
    engines = sorted({int(state.row_engine[row]) for row in rows if state.row_engine[row] >= 0})
    coordinator.dispatch.bring_up(np.array(engines, np.int64), time_s, rank)
    return bool(np.isfinite(state.row_finish_s[rows]).any())
