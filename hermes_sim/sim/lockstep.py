"""Data-parallel attention: the ranks of one replica run every step together (vLLM's and SGLang's DP attention).

Each rank has its own sequences and blocks. The experts are shared, so no rank begins before the others; each pads its
tokens to the largest rank's, and a rank without work runs a dummy step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import NUM_DECODE_TOKENS, NUM_PREFILL, NUM_TOKENS, put_in_flight
from hermes_sim.batching.schedule import schedule
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.lanes import entry_free_s, free_lane, slow_down, start_lane
from hermes_sim.sim.pricing import (
    COMPUTE,
    HOST,
    MEMORY,
    NETWORK,
    SHORTEST_STEP_S,
    link_wait_s,
    price_step,
    total_s,
)


@compiled
def begin_ranks(state: Any, group: int, time_s: float) -> None:
    """All ranks decide a batch, are padded to the largest and leave together; none has anything: all wait."""
    first = state.group_first[group]
    members = state.group_members[first : first + state.group_size[group]]
    any_tokens = False
    for e in members:
        state.now_s[e] = max(state.now_s[e], time_s)
        state.next_start_s[e] = np.inf
        if schedule(state, e, time_s):
            any_tokens = True
    if not any_tokens:
        return
    lane = free_lane(state, members[0])
    any_prompt = False
    most_tokens = np.int64(0)
    for e in members:
        put_in_flight(state, e, lane)
        any_prompt = any_prompt or state.scratch_batch[NUM_PREFILL] > 0
        most_tokens = max(most_tokens, state.scratch_batch[NUM_TOKENS])
        price_step(state, e, lane)
    host_s = 0.0
    device_s = 0.0
    for e in members:
        pad_to_largest(state, e, lane, most_tokens, any_prompt)
        seconds = state.lane_seconds[e, lane]
        if state.is_slow[e] != 0:
            slow_down(state, e, seconds)
        if state.links_limited[e] != 0:
            seconds[NETWORK] += link_wait_s(state, e, most_tokens, max(total_s(seconds), SHORTEST_STEP_S))
        host_s = max(host_s, seconds[HOST])
        device_s = max(device_s, seconds[COMPUTE] + seconds[MEMORY] + seconds[NETWORK])
    for e in members:
        seconds = state.lane_seconds[e, lane]
        seconds[HOST] = host_s
        # it waits for the others in the exchange of tokens
        seconds[NETWORK] = max(device_s - seconds[COMPUTE] - seconds[MEMORY], 0.0)
        start_lane(state, e, lane, time_s)
        state.lane_entry_s[e, lane] = host_s
        state.lane_exit_s[e, lane] = device_s
    leave_together(state, members, lane, time_s + host_s + device_s)


@compiled
def leave_together(state: Any, members: Any, lane: int, alone_s: float) -> None:
    """One end for all ranks, held back by the step before if that is still on the devices."""
    end_s = alone_s
    leader = members[0]
    for other in range(state.num_lanes[leader]):
        if other != lane and not np.isinf(state.lane_end_s[leader, other]):
            end_s = max(end_s, state.lane_end_s[leader, other] + state.lane_exit_s[leader, lane])
    for e in members:
        state.lane_end_s[e, lane] = end_s
        state.lane_held_s[e, lane] = end_s - alone_s
        if state.num_in_flight[e] < state.num_lanes[e]:
            state.next_start_s[e] = entry_free_s(state, e)


@compiled
def pad_to_largest(state: Any, e: int, lane: int, most_tokens: int, any_prompt: bool) -> None:
    """Read the token table where the largest rank does, the prompts' table if any rank has one."""
    kind = state.cost_kind[e]
    batch = state.lane_batch[e, lane]
    seconds = state.lane_seconds[e, lane]
    for resource in range(4):
        if batch[NUM_PREFILL] > 0:
            seconds[resource] -= state.cost_linear[kind, batch[NUM_TOKENS], resource]
        else:
            seconds[resource] -= state.cost_decode_linear[kind, batch[NUM_DECODE_TOKENS], resource]
        if any_prompt:
            seconds[resource] += state.cost_linear[kind, most_tokens, resource]
        else:
            seconds[resource] += state.cost_decode_linear[kind, most_tokens, resource]
        seconds[resource] = max(seconds[resource], 0.0)
