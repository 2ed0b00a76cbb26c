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
from hermes_sim.sim.lanes import start_lane
from hermes_sim.sim.pricing import NETWORK, price_step, total_s


@compiled
def begin_ranks(state: Any, group: int, time_s: float) -> None:
    """All ranks decide a batch, are padded to the largest and leave together; none has anything: all wait."""
    first = state.group_first[group]
    members = state.group_members[first : first + state.group_size[group]]
    any_tokens = False
    any_prompt = False
    most_tokens = np.int64(0)
    for e in members:
        state.now_s[e] = max(state.now_s[e], time_s)
        state.next_start_s[e] = np.inf
        if schedule(state, e, time_s):
            any_tokens = True
        put_in_flight(state, e, 0)
        any_prompt = any_prompt or state.scratch_batch[NUM_PREFILL] > 0
        most_tokens = max(most_tokens, state.scratch_batch[NUM_TOKENS])
        price_step(state, e, 0)
    if not any_tokens:
        return
    longest_s = 0.0
    for e in members:
        pad_to_largest(state, e, most_tokens, any_prompt)
        longest_s = max(longest_s, total_s(state.lane_seconds[e, 0]))
    for e in members:
        seconds = state.lane_seconds[e, 0]
        seconds[NETWORK] += longest_s - total_s(seconds)  # waits for the others in the exchange of tokens
        start_lane(state, e, 0, time_s)
        state.lane_end_s[e, 0] = time_s + longest_s


@compiled
def pad_to_largest(state: Any, e: int, most_tokens: int, any_prompt: bool) -> None:
    """Read the token table where the largest rank does, the prompts' table if any rank has one."""
    kind = state.cost_kind[e]
    batch = state.lane_batch[e, 0]
    seconds = state.lane_seconds[e, 0]
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
