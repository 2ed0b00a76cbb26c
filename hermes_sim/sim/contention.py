"""What happens when engines of a group want more of a shared resource than there is.

A step in flight is one job with a demand vector: the share it uses, while alone, of the compute and memory bandwidth of
its devices, and of the links that its collectives have in common with another engine's. Speeds are set by progressive
filling (max-min fairness; Bertsekas and Gallager, Data Networks, section 6.5.2): all rise together, those that use a
resource which is full stop rising, none passes 1. A job whose speed never changed keeps its end to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled


@compiled
def retime(state: Any, group: int, time_s: float) -> None:
    """After a step of the group began or ended at time_s: bring the others up to date and set new speeds."""
    first = state.group_first[group]
    members = state.group_members[first : first + state.group_size[group]]
    for e in members:
        for lane in range(state.num_lanes[e]):
            if np.isinf(state.lane_end_s[e, lane]):
                continue
            elapsed = time_s - state.lane_updated_s[e, lane]
            state.lane_remaining_s[e, lane] -= elapsed * state.lane_speed[e, lane]
            state.lane_updated_s[e, lane] = time_s
    fill(state, members, state.group_num_columns[group])


@compiled
def fill(state: Any, members: Any, num_columns: int) -> None:
    """Progressive filling over the steps in flight; where a speed changes, the end moves."""
    free = np.ones(num_columns)
    level = 0.0
    frozen = np.zeros((members.size, state.lane_end_s.shape[1]), np.bool_)
    new_speed = np.ones((members.size, state.lane_end_s.shape[1]))
    while level < 1.0:
        rise = 1.0 - level
        tightest = -1
        for resource in range(num_columns):
            wanted = 0.0
            for i in range(members.size):
                for lane in range(state.num_lanes[members[i]]):
                    if not np.isinf(state.lane_end_s[members[i], lane]) and not frozen[i, lane]:
                        wanted += state.lane_demand[members[i], lane, resource]
            if wanted > 0.0 and free[resource] < rise * wanted:
                rise = max(free[resource], 0.0) / wanted
                tightest = resource
        for resource in range(num_columns):
            for i in range(members.size):
                for lane in range(state.num_lanes[members[i]]):
                    if not np.isinf(state.lane_end_s[members[i], lane]) and not frozen[i, lane]:
                        free[resource] -= rise * state.lane_demand[members[i], lane, resource]
        level += rise
        if tightest < 0:
            break
        for i in range(members.size):
            for lane in range(state.num_lanes[members[i]]):
                if not frozen[i, lane] and state.lane_demand[members[i], lane, tightest] > 0.0:
                    frozen[i, lane] = True
                    state.lane_bound[members[i], lane] = tightest
                    new_speed[i, lane] = level
    for i in range(members.size):
        e = members[i]
        for lane in range(state.num_lanes[e]):
            if np.isinf(state.lane_end_s[e, lane]):
                continue
            if new_speed[i, lane] != state.lane_speed[e, lane]:
                state.lane_speed[e, lane] = new_speed[i, lane]
                state.lane_retimed[e, lane] = 1
            if state.lane_retimed[e, lane] != 0:
                state.lane_end_s[e, lane] = (
                    state.lane_updated_s[e, lane] + max(state.lane_remaining_s[e, lane], 0.0) / new_speed[i, lane]
                )
