"""Who gives way when KV blocks run out, and what becomes of its KV (rules 4 and 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.adapters import leave_adapter
from hermes_sim.batching.batch import has_ended, is_decoding, note
from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import NUM_SHARES, PREEMPTED, SWAPPED_OUT
from hermes_sim.state.blocks import first_in_window, release, seal_private
from hermes_sim.state.queues import goes_before, is_sorted, push_again


@compiled
def gives_way_before(state: Any, e: int, slot: int, other: int) -> bool:
    """Whether `slot` is to be preempted rather than `other`, which stands later in the running list."""
    row, other_row = state.slot_row[e, slot], state.slot_row[e, other]
    if state.fewest_generated[e] != 0:
        if state.row_generated[row] != state.row_generated[other_row]:
            return state.row_generated[row] < state.row_generated[other_row]
        return state.row_prompt[row] > state.row_prompt[other_row]
    order = state.queue_order[e]
    return is_sorted(order) and goes_before(state, order, other_row, row)


@compiled
def find_victim(state: Any, e: int) -> int:
    """Place in the running list of the sequence to preempt, or -1.

    Sequences in flight stay, but with asynchronous scheduling: there all are, and what their step brings is dropped.
    """
    found = -1
    for place in range(state.num_running[e] - 1, -1, -1):
        slot = np.int64(state.running[e, place])
        if has_ended(state, e, slot) or (state.slot_in_flight[e, slot] > 0 and state.async_scheduling[e] == 0):
            continue
        if found < 0 or gives_way_before(state, e, slot, np.int64(state.running[e, found])):
            found = place
        if state.fewest_generated[e] == 0 and not is_sorted(state.queue_order[e]):
            return found
    return found


@compiled
def drop_from_flight(state: Any, e: int, slot: int) -> None:
    """Steps in flight go on without this sequence; its tokens of them are lost."""
    if state.slot_in_flight[e, slot] == 0:
        return
    for lane in range(state.num_lanes[e]):
        for place in range(state.lane_num_scheduled[e, lane]):
            if state.lane_slots[e, lane, place] == slot:
                state.lane_slots[e, lane, place] = -2 - np.int64(state.slot_row[e, slot])


@compiled
def num_host_blocks(state: Any, e: int, num_tokens: int) -> int:
    """Blocks that hold the KV of so many tokens, as far as the next one looks back."""
    return (num_tokens + state.block_tokens[e] - 1) // state.block_tokens[e] - first_in_window(state, e, num_tokens)


@compiled
def preempt(state: Any, e: int, place: int, time_s: float) -> None:
    """Take a sequence off the running list: it keeps its tokens, its KV goes to the host or is computed again."""
    slot = np.int64(state.running[e, place])
    row = np.int64(state.slot_row[e, slot])
    state.has_evicted[e] = 1
    state.slot_computed[e, slot] -= state.slot_scheduled[e, slot]
    state.slot_scheduled[e, slot] = 0
    if state.share_by_sums[e] != 0 and is_decoding(state, e, slot):
        for share in range(NUM_SHARES):
            state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
        if np.isnan(state.row_last_token_s[row]):
            state.row_last_token_s[row] = time_s
    drop_from_flight(state, e, slot)
    if state.max_adapters[e] > 0:
        leave_adapter(state, e, row, time_s)
    done = np.int64(state.slot_done[e, slot])
    num_blocks = num_host_blocks(state, e, done)
    state.row_interrupted_s[row] = time_s
    state.row_preemptions[row] += 1
    state.total_preemptions[e] += 1
    is_decode = state.row_generated[row] >= 1 and state.row_prompt[row] + state.row_generated[row] - done == 1
    if is_decode and 0 < num_blocks <= state.swap_blocks[e] - state.num_swapped_blocks[e]:
        state.row_swapped[row] = done
        state.num_swapped_blocks[e] += num_blocks
        state.pending_swaps[e] += num_blocks
        state.total_swapped_blocks[e] += num_blocks
        note(state, e, SWAPPED_OUT, row, num_blocks)
    else:
        state.total_recomputed_tokens[e] += done
        state.load_tokens[e] += done
        note(state, e, PREEMPTED, row, done)
    seal_private(state, e, slot)
    release(state, e, slot)
    for later in range(place, state.num_running[e] - 1):
        state.running[e, later] = state.running[e, later + 1]
    state.num_running[e] -= 1
    push_again(state, e, state.first_queue[e], row)
