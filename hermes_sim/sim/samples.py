"""Visits of several sequences: samples of one prompt, which share its blocks, and branches with a prompt each.

The visit ends with the last of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.sim.outbox import close_visit
from hermes_sim.state.arrays import ENERGY, ENGINE_TIME, FORKED, HAS_KV
from hermes_sim.state.blocks import share_blocks, take_slot
from hermes_sim.state.clients import client_enters
from hermes_sim.state.queues import is_sorted, push_again, push_new
from hermes_sim.state.sequences import final_output


@compiled
def fork_samples(state: Any, e: int, slot: int, row: int, time_s: float, at_front: bool) -> None:
    """All samples but the first, which goes on in `slot`, join the line in their order.

    A sample shares the full blocks of its prompt; its copy of the last block, if part full, is made when it first
    runs. Where no slot is free it starts without KV, and finds in the prefix cache what is left of its prompt.
    """
    first = np.int64(state.row_first_sample[row])
    extra = np.int64(state.row_num_samples[row]) - 1
    for sample in range(first, first + extra):
        start_sample(state, e, slot, row, sample, time_s)
    backwards = at_front and not is_sorted(state.queue_order[e])
    for number in range(extra):
        sample = first + (extra - 1 - number if backwards else number)
        if state.row_output[sample] <= 1:
            continue
        if at_front:
            push_again(state, e, state.first_queue[e], sample)
        else:
            push_new(state, e, state.first_queue[e], sample)


@compiled
def push_branches(state: Any, e: int, queue: int, row: int, time_s: float) -> None:
    """The other sequences of a visit join the line behind its first one, each with a prompt of its own."""
    first = np.int64(state.row_first_sample[row])
    for branch in range(first, first + state.row_num_branches[row] - 1):
        state.row_engine[branch] = e
        state.row_arrival_s[branch] = time_s
        state.row_priority[branch] = state.row_priority[row]
        state.row_key[branch] = state.row_key[row]
        state.row_client[branch] = state.row_client[row]
        state.row_order[branch] = state.num_pushed[e]
        state.num_pushed[e] += 1
        num_output = final_output(state, branch)
        state.load_requests[e] += 1
        state.load_output_tokens[e] += num_output
        state.load_tokens[e] += state.row_prompt[branch] + max(num_output - 1, 0)
        client_enters(state, e, branch)
        push_new(state, e, queue, branch)


@compiled
def start_sample(state: Any, e: int, slot: int, row: int, sample: int, time_s: float) -> None:
    """A sample of the visit `row` begins with the first token that the prompt's last step gave it."""
    state.row_engine[sample] = e
    state.row_arrival_s[sample] = time_s
    state.row_start_s[sample] = time_s
    state.row_generated[sample] = min(np.int64(1), np.int64(state.row_output[sample]))
    if state.row_output[sample] <= 1:
        close_sample(state, e, sample, time_s)
        return
    state.row_priority[sample] = state.row_priority[row]
    state.row_key[sample] = state.row_key[row]
    state.row_client[sample] = state.row_client[row]
    state.row_order[sample] = state.row_order[row]
    state.row_last_token_s[sample] = time_s
    left = np.int64(state.row_output[sample]) - 1
    state.load_requests[e] += 1
    state.load_output_tokens[e] += left
    state.load_tokens[e] += left
    client_enters(state, e, sample)
    if state.num_free_slots[e] > 0:
        share_blocks(state, e, take_slot(state, e, sample), slot)
        state.row_flags[sample] |= np.uint8(HAS_KV + FORKED)
    else:
        state.load_tokens[e] += state.row_prompt[sample]


@compiled
def close_sample(state: Any, e: int, row: int, time_s: float) -> None:
    """A sequence has all its tokens; with the last sample of its prompt the visit ends."""
    visit = np.int64(state.row_parent[row])
    if visit < 0:
        visit = np.int64(row)
    else:
        state.row_finish_s[row] = time_s
        state.row_shares[visit, ENERGY] += state.row_shares[row, ENERGY]
        state.row_shares[visit, ENGINE_TIME] += state.row_shares[row, ENGINE_TIME]
    state.row_open_samples[visit] -= 1
    if state.row_open_samples[visit] == 0:
        close_visit(state, e, visit, time_s)
