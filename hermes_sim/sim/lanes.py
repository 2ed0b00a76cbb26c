"""Steps in flight: when the next may enter, when one leaves, and its share of what the engine has done.

A pipeline of p stages holds p steps; with asynchronous scheduling the next step is decided while one runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.sim.contention import retime
from hermes_sim.sim.pricing import COMPUTE, HOST, MEMORY, NETWORK, SHORTEST_STEP_S, total_s
from hermes_sim.state.arrays import DEVICE_COLUMNS, ENERGY, ENGINE_TIME, NUM_UNIT_COLUMNS, TOKENS


@compiled
def free_lane(state: Any, e: int) -> int:
    """A lane with no step in flight, or -1."""
    for lane in range(state.num_lanes[e]):
        if np.isinf(state.lane_end_s[e, lane]):
            return lane
    return -1


@compiled
def entry_free_s(state: Any, e: int) -> float:
    """When the next step may enter: the first pipeline stage is free again, or the host has sent the last one off."""
    free_s = state.now_s[e]
    if state.num_lanes[e] == 1:
        return free_s
    for lane in range(state.num_lanes[e]):
        if not np.isinf(state.lane_end_s[e, lane]):
            free_s = max(free_s, state.lane_start_s[e, lane] + state.lane_entry_s[e, lane])
    return free_s


@compiled
def hold_back(state: Any, e: int, lane: int) -> None:
    """Steps leave in the order in which they entered: pipeline stages, or the device, are busy with those before.

    Exact for stages of equal length (proportionate flow shop; Pinedo, Scheduling, section 6.1).
    """
    alone_s = state.lane_end_s[e, lane]
    duration_s = total_s(state.lane_seconds[e, lane])
    if state.async_scheduling[e] != 0:
        state.lane_entry_s[e, lane] = state.lane_seconds[e, lane, HOST]
        state.lane_exit_s[e, lane] = duration_s - state.lane_seconds[e, lane, HOST]
    else:
        state.lane_entry_s[e, lane] = duration_s * state.stage_interval_frac[e]
        state.lane_exit_s[e, lane] = state.lane_entry_s[e, lane]
    end_s = alone_s
    for other in range(state.num_lanes[e]):
        if other != lane and not np.isinf(state.lane_end_s[e, other]):
            end_s = max(end_s, state.lane_end_s[e, other] + state.lane_exit_s[e, lane])
    state.lane_end_s[e, lane] = end_s
    state.lane_held_s[e, lane] = end_s - alone_s


@compiled
def start_lane(state: Any, e: int, lane: int, time_s: float) -> None:
    """Put a step in flight; its seconds by resource stand in state.lane_seconds."""
    seconds = state.lane_seconds[e, lane]
    duration_s = total_s(seconds)
    if duration_s < SHORTEST_STEP_S:
        seconds[HOST] += SHORTEST_STEP_S - duration_s
        duration_s = SHORTEST_STEP_S
    state.lane_start_s[e, lane] = time_s
    state.lane_end_s[e, lane] = time_s + duration_s
    state.num_in_flight[e] += 1
    group = state.group_of[e]
    if state.group_contended[group] != 0:
        state.lane_remaining_s[e, lane] = duration_s
        state.lane_updated_s[e, lane] = time_s
        state.lane_speed[e, lane] = 1.0
        state.lane_retimed[e, lane] = 0
        retime(state, group, time_s)


@compiled
def slow_down(state: Any, e: int, seconds: Any) -> None:
    """The devices are not at full speed at present: what each resource limits takes so much longer."""
    for resource in range(4):
        seconds[resource] *= state.slowdown[e, resource]


@compiled
def step_seconds(state: Any, e: int, lane: int) -> float:
    """How long the step that ends now took; what it took beyond its own seconds is booked where it belongs."""
    time_s = state.lane_end_s[e, lane]
    seconds = state.lane_seconds[e, lane]
    if state.async_scheduling[e] != 0 and state.engine_kind[e] == TOKENS:
        # the host's work beside the step before costs no time
        shown_s = time_s - max(state.lane_start_s[e, lane], state.last_end_s[e])
        seconds[HOST] = max(shown_s - (seconds[0] + seconds[1] + seconds[2]), 0.0)
        return total_s(seconds)
    duration_s = time_s - state.lane_start_s[e, lane] - state.lane_held_s[e, lane]
    if state.group_contended[state.group_of[e]] != 0 and state.lane_retimed[e, lane] != 0:
        seconds[bound_by(state, e, lane)] += duration_s - total_s(seconds)
    return duration_s


@compiled
def bound_by(state: Any, e: int, lane: int) -> int:
    """What a step that others slowed waited for: the resource that slowed it last."""
    column = state.lane_bound[e, lane]
    if column >= state.group_first_link[state.group_of[e]]:
        return NETWORK
    return COMPUTE if column % DEVICE_COLUMNS == 0 else MEMORY


@compiled
def step_energy_j(state: Any, e: int, lane: int) -> float:
    """Energy of a step: seconds by limiting resource times the power while it limits, and what its device groups draw
    above that where they have an account of their own."""
    energy_j = 0.0
    for resource in range(4):
        energy_j += state.lane_seconds[e, lane, resource] * state.power_w[e, resource]
    return energy_j + state.lane_units_j[e, lane]


@compiled
def add_shares(state: Any, e: int, lane: int, duration_s: float) -> None:
    """Add a finished step to the engine's running sums; a sequence that decodes reads its part as a difference."""
    energy_j = step_energy_j(state, e, lane)
    for resource in range(4):
        state.shares[e, resource] += state.lane_seconds[e, lane, resource]
    if state.num_units[e] > 0:
        for column in range(NUM_UNIT_COLUMNS):
            state.unit_sums[e, column] += state.lane_units[e, lane, column]
    number = max(state.lane_num_tokens[e, lane], 1)
    state.shares[e, ENERGY] += energy_j / number
    state.shares[e, ENGINE_TIME] += duration_s / number
    state.num_steps[e] += 1
    state.busy_s[e] += duration_s
    state.batch_integral_s[e] += duration_s * state.lane_num_scheduled[e, lane]
    state.blocks_integral_s[e] += duration_s * state.lane_used_blocks[e, lane]
