"""Batches of whole jobs: when one is ready, what it costs, how its jobs end."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.sim.lanes import slow_down, start_lane, step_energy_j
from hermes_sim.sim.outbox import close_visit
from hermes_sim.sim.pricing import set_demand
from hermes_sim.state.arrays import ENERGY, ENGINE_TIME, UNIT_J
from hermes_sim.state.queues import pop


@compiled
def queue_ready_s(state: Any, e: int, queue: int) -> float:
    """When a batch of this queue is full or has waited long enough."""
    head = state.queue_head[queue]
    if head < 0:
        return np.inf
    waited_s = state.row_arrival_s[head] + state.max_wait_s[e]
    if state.queue_length[queue] >= state.max_batch_size[e]:
        return min(waited_s, state.queue_full_s[queue])
    return waited_s


@compiled
def begin_jobs(state: Any, e: int, lane: int, time_s: float) -> None:
    """A worker takes a batch of the queue that has been ready longest."""
    first = state.first_queue[e]
    chosen = first
    for queue in range(first, first + state.num_queues[e]):
        if queue_ready_s(state, e, queue) < queue_ready_s(state, e, chosen):
            chosen = queue
    number = min(state.queue_length[chosen], state.max_batch_size[e])
    units = 0.0
    timed_s = 0.0
    for place in range(number):
        row = np.int64(pop(state, chosen))
        state.lane_jobs[e, lane, place] = row
        state.row_start_s[row] = time_s
        units += state.row_units[row]
        timed_s = max(timed_s, state.row_seconds[row])
    if state.queue_length[chosen] >= state.max_batch_size[e]:
        state.queue_full_s[chosen] = time_s
    state.lane_num_scheduled[e, lane] = number
    state.lane_num_tokens[e, lane] = number
    state.total_units[chosen] += units
    state.total_jobs[chosen] += number
    state.total_batches[chosen] += 1
    demand = read_curve(state, chosen, units, state.lane_seconds[e, lane])
    if state.num_units[e] > 0:
        account_array(state, e, lane, chosen, units)
    state.lane_seconds[e, lane, 0] += timed_s
    if state.is_slow[e] != 0:
        slow_down(state, e, state.lane_seconds[e, lane])
    if state.group_contended[state.group_of[e]] != 0:
        set_demand(state, e, lane)
        for column in state.device_columns[e]:
            if column >= 0:
                state.lane_demand[e, lane, column + 1] = demand
    start_lane(state, e, lane, time_s)


@compiled
def account_array(state: Any, e: int, lane: int, queue: int, units: float) -> None:
    """Seconds at work and joules above idle of a batch on devices that count energy by operation."""
    seconds = state.lane_seconds[e, lane]
    low, high, weight = curve_place(state, queue, units)
    joules = state.curve_active_j[queue]
    active_j = joules[low] + weight * (joules[high] - joules[low])
    state.lane_units[e, lane, 0] = seconds[0] + seconds[1]
    state.lane_units[e, lane, UNIT_J] = active_j
    state.lane_units_j[e, lane] = active_j


@compiled
def curve_place(state: Any, queue: int, units: float) -> tuple[int, int, float]:
    """Points of a job's cost curve on either side, and the weight of the higher one."""
    xs = state.curve_units[queue]
    low = 0
    high = state.curve_num_points[queue] - 1
    if high == 0 or units <= xs[0]:
        high = 0
    else:
        while high - low > 1:
            middle = (low + high) // 2
            if xs[middle] <= units:
                low = middle
            else:
                high = middle
    weight = 0.0
    if high > low:
        weight = (units - xs[low]) / (xs[high] - xs[low])
    return low, high, weight


@compiled
def read_curve(state: Any, queue: int, units: float, seconds: Any) -> float:
    """Interpolate a job's cost curve into `seconds` [4]; returns the share of memory bandwidth it uses alone."""
    low, high, weight = curve_place(state, queue, units)
    for resource in range(4):
        left = state.curve_seconds[queue, low, resource]
        right = state.curve_seconds[queue, high, resource]
        seconds[resource] = left + weight * (right - left)
    demand = state.curve_demand[queue]
    return min(1.0, demand[low] + weight * (demand[high] - demand[low]))


@compiled
def end_jobs(state: Any, e: int, lane: int, time_s: float, duration_s: float) -> None:
    """Every job of the batch ends with it."""
    number = state.lane_num_scheduled[e, lane]
    energy_j = step_energy_j(state, e, lane)
    for place in range(number):
        row = np.int64(state.lane_jobs[e, lane, place])
        if row < 0:  # withdrawn while in flight: computed for it, and thrown away
            state.row_shares[-2 - row, ENERGY] += energy_j / number
            state.row_shares[-2 - row, ENGINE_TIME] += duration_s / number
            continue
        for resource in range(4):
            state.row_shares[row, resource] += state.lane_seconds[e, lane, resource]
        state.row_shares[row, ENERGY] += energy_j / number
        state.row_shares[row, ENGINE_TIME] += duration_s / number
        state.load_requests[e] -= 1
        state.load_tokens[e] -= np.int64(state.row_units[row])
        close_visit(state, e, row, time_s)
