"""One step of an engine, from its begin to its end: `begin_step` and `end_step` are the whole meaning of a run.

sim/stretch.py repeats them for a batch that only decodes; sim/advance.py decides how far an engine may go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import put_in_flight
from hermes_sim.batching.schedule import schedule
from hermes_sim.batching.speculation import first_ready_s, next_ready_s
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.contention import retime
from hermes_sim.sim.job_steps import begin_jobs, end_jobs, queue_ready_s
from hermes_sim.sim.lanes import add_shares, entry_free_s, free_lane, hold_back, slow_down, start_lane, step_seconds
from hermes_sim.sim.outbox import emit
from hermes_sim.sim.pricing import NETWORK, SHORTEST_STEP_S, link_wait_s, price_step, set_demand, total_s
from hermes_sim.sim.timeline import pass_points
from hermes_sim.sim.token_steps import close_ranks, end_static_batch, end_tokens, grant_reservations
from hermes_sim.sim.withdraw import let_go
from hermes_sim.state.arrays import JOBS, NEED_SCHEDULE, TOKENS


@compiled
def set_next_start(state: Any, e: int) -> None:
    """When the engine could begin a step, given what waits now; infinity if nothing does or no lane is free."""
    state.next_start_s[e] = np.inf
    if state.num_in_flight[e] >= state.num_lanes[e]:
        return
    if state.engine_kind[e] == TOKENS:
        if state.num_running[e] > 0 or state.queue_head[state.first_queue[e]] >= 0:
            state.next_start_s[e] = entry_free_s(state, e)
            if state.draft_devices[e] > 0 and state.queue_head[state.first_queue[e]] < 0:
                state.next_start_s[e] = max(state.next_start_s[e], first_ready_s(state, e))
        return
    ready_s = np.inf
    for queue in range(state.first_queue[e], state.first_queue[e] + state.num_queues[e]):
        ready_s = min(ready_s, queue_ready_s(state, e, queue))
    state.next_start_s[e] = max(state.now_s[e], ready_s)


@compiled
def begin_step(state: Any, e: int, time_s: float) -> None:
    """Decide a batch, price it, put it in flight. Nothing to run: the engine waits for the next push or end."""
    state.now_s[e] = max(state.now_s[e], time_s)
    if state.engine_kind[e] == JOBS:
        begin_jobs(state, e, free_lane(state, e), time_s)
        set_next_start(state, e)
        return
    state.next_start_s[e] = np.inf
    if state.python_policy[e] != 0:
        emit(state, time_s, NEED_SCHEDULE, e)
        return
    if schedule(state, e, time_s):
        launch(state, e, time_s)
    elif state.static_batch[e] != 0 and state.num_running[e] > 0 and end_static_batch(state, e, time_s) > 0:
        close_ranks(state, e)  # all but ended ones have lost their blocks: the batch is over
        set_next_start(state, e)
    elif state.draft_devices[e] > 0:
        state.next_start_s[e] = next_ready_s(state, e, time_s)


@compiled
def launch(state: Any, e: int, time_s: float) -> None:
    """Price the step that has been decided and put it in flight."""
    lane = free_lane(state, e)
    put_in_flight(state, e, lane)
    price_step(state, e, lane)
    seconds = state.lane_seconds[e, lane]
    if state.is_slow[e] != 0:
        slow_down(state, e, seconds)
    if state.links_limited[e] != 0:
        duration_s = max(total_s(seconds), SHORTEST_STEP_S)
        seconds[NETWORK] += link_wait_s(state, e, state.lane_num_tokens[e, lane], duration_s)
    if state.group_contended[state.group_of[e]] != 0:
        set_demand(state, e, lane)
    start_lane(state, e, lane, time_s)
    if state.num_lanes[e] > 1:
        hold_back(state, e, lane)
        if state.num_in_flight[e] < state.num_lanes[e]:
            state.next_start_s[e] = entry_free_s(state, e)


@compiled
def end_step(state: Any, e: int, lane: int) -> None:
    """Progress, tokens, completions and sealed blocks of the step that ends now in this lane."""
    time_s = state.lane_end_s[e, lane]
    start_s = max(state.lane_start_s[e, lane], state.last_end_s[e])
    duration_s = step_seconds(state, e, lane)
    group = state.group_of[e]
    state.lane_end_s[e, lane] = np.inf
    state.num_in_flight[e] -= 1
    state.now_s[e] = max(state.now_s[e], time_s)
    state.last_end_s[e] = time_s
    add_shares(state, e, lane, duration_s)
    num_sampled = np.int64(0)
    if state.engine_kind[e] == JOBS:
        end_jobs(state, e, lane, time_s, duration_s)
    else:
        num_sampled = end_tokens(state, e, lane, time_s, duration_s)
        if state.num_leaving[e] > 0:
            let_go(state, e)
        grant_reservations(state, e, time_s)
    if time_s >= state.timeline_next_s[e]:
        pass_points(state, e, lane, start_s, time_s, num_sampled)
    set_next_start(state, e)
    if state.group_contended[group] != 0:
        retime(state, group, time_s)
