"""From the arrays at the end of a run to its result tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import RunTables
from hermes_sim.sim.collect_device_groups import device_group_table
from hermes_sim.sim.collect_engines import engine_table, timeline_table
from hermes_sim.sim.collect_kv_stores import kv_store_table
from hermes_sim.sim.collect_links import link_table, link_timeline_table
from hermes_sim.sim.collect_operators import operator_table
from hermes_sim.sim.collect_requests import request_table
from hermes_sim.sim.collect_speculation import book_messages
from hermes_sim.sim.collect_stages import stage_rows
from hermes_sim.sim.collect_timeline import timeline_of
from hermes_sim.sim.collect_visits import visit_table
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.laws import check_laws
from hermes_sim.state.arrays import ITL_BINS_PER_OCTAVE_LOG2, ITL_LOWEST_EXPONENT, ITL_NUM_OCTAVES

FloatArray = npt.NDArray[np.float64]


def collect(coordinator: Coordinator) -> RunTables:
    """All tables of a finished run."""
    lowered, state = coordinator.lowered, coordinator.state
    duration_s = run_duration_s(coordinator)
    check_laws(coordinator)
    book_messages(coordinator)
    timeline = timeline_of(lowered, duration_s)
    stages = stage_rows(lowered)
    visits = visit_table(coordinator, stages)
    engines = engine_table(coordinator, timeline)
    steps, decisions = coordinator.step_log.tables() if coordinator.step_log is not None else (None, None)
    return RunTables(
        requests=request_table(coordinator, stages, engines, visits["finish_s"]),
        visits=visits,
        engines=engines,
        links=link_table(coordinator, duration_s),
        operators=operator_table(lowered),
        timeline=timeline_table(coordinator, timeline),
        itl_edges_s=itl_edges_s(),
        itl_counts=state.itl_counts.copy(),
        duration_s=duration_s,
        num_events=coordinator.clock.num_events,
        num_steps=int(state.num_steps.sum()),
        notes=(*lowered.scenario.notes, *lowered.requests.notes),
        steps=steps,
        decisions=decisions,
        kv_stores=kv_store_table(coordinator, duration_s),
        device_groups=device_group_table(coordinator, duration_s),
        link_timeline=link_timeline_table(coordinator, timeline.edges_s),
    )


def run_duration_s(coordinator: Coordinator) -> float:
    """To the last event: an arrival, the end of a visit, the end of a step."""
    state = coordinator.state
    last_arrival_s = np.nanmax(coordinator.arrival_s, initial=0.0) if len(coordinator.arrival_s) else 0.0
    last_finish_s = np.nanmax(state.row_finish_s, initial=0.0)
    return float(max(last_arrival_s, last_finish_s))


def itl_edges_s() -> FloatArray:
    """Edges of the gap histogram: each octave in equal parts."""
    parts = 1 << ITL_BINS_PER_OCTAVE_LOG2
    fractions = 1.0 + np.arange(parts) / parts
    octaves = 2.0 ** (ITL_LOWEST_EXPONENT + np.arange(ITL_NUM_OCTAVES))
    return np.concatenate(((octaves[:, None] * fractions).ravel(), [2.0 * octaves[-1]]))
