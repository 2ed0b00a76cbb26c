"""An engine fails: what it holds is lost, whoever is in it is thrown out, and it is as empty as at the start."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.adapters import forget_adapters
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.contention import retime
from hermes_sim.sim.settle import settle
from hermes_sim.state.arrays import JOBS, NOT_HELD, NUM_SHARES
from hermes_sim.state.blocks import release
from hermes_sim.state.queues import pop


@compiled
def abandon(state: Any, e: int, time_s: float, rows: Any) -> int:
    """Throw everybody out at time_s; their rows (visits and samples) come to `rows`. Returns how many there are.

    A step in flight is cut off: its time and energy are lost and count for nobody. What sequences had used of the
    engine in steps that ended stays theirs.
    """
    number = np.int64(0)
    if state.stretch_ticks[e] >= 0:
        settle(state, e)
    state.stretch_in_flight[e] = 0
    for lane in range(state.num_lanes[e]):
        if np.isinf(state.lane_end_s[e, lane]):
            continue
        state.lane_end_s[e, lane] = np.inf
        if state.engine_kind[e] == JOBS:
            for place in range(state.lane_num_scheduled[e, lane]):
                rows[number] = state.lane_jobs[e, lane, place]
                if rows[number] >= 0:
                    number += 1
    state.num_in_flight[e] = 0
    for queue in range(state.first_queue[e], state.first_queue[e] + state.num_queues[e]):
        while state.queue_head[queue] >= 0:
            rows[number] = pop(state, queue)
            number += 1
    if state.engine_kind[e] != JOBS:
        waiting = number
        for place in range(state.num_running[e]):
            slot = np.int64(state.running[e, place])
            rows[number] = state.slot_row[e, slot]
            row = rows[number]
            left = state.row_prompt[row] + state.row_generated[row] - state.slot_done[e, slot]
            if state.share_by_sums[e] != 0 and left == 1:  # it decodes: its shares are differences of running sums
                for share in range(NUM_SHARES):
                    used = state.shares[e, share] - state.slot_base[e, slot, share]
                    state.row_shares[row, share] += used
            release(state, e, int(slot))
            number += 1
        for place in range(waiting):
            if state.row_slot[rows[place]] >= 0:
                release(state, e, int(state.row_slot[rows[place]]))
        for slot in range(state.slot_row.shape[1]):  # KV that was on its way from here or to here
            if state.slot_row[e, slot] >= 0:
                rows[number] = state.slot_row[e, slot]
                release(state, e, slot)
                number += 1
        while state.reserve_head[e] >= 0:
            rows[number] = state.reserve_head[e]
            state.reserve_head[e] = state.row_next[rows[number]]
            state.row_next[rows[number]] = -1
            number += 1
        state.reserve_tail[e] = -1
        forget(state, e)
    state.num_running[e] = 0
    state.load_requests[e] = 0
    state.load_tokens[e] = 0
    state.load_output_tokens[e] = 0
    state.num_watched[e] = 0
    state.num_leaving[e] = 0
    state.next_start_s[e] = np.inf
    state.now_s[e] = max(state.now_s[e], time_s)
    group = state.group_of[e]
    if state.group_contended[group] != 0:
        retime(state, group, time_s)
    return int(number)


@compiled
def forget(state: Any, e: int) -> None:
    """The prefix cache is empty, and nothing is under way."""
    for place in range(state.hash_keys.shape[1]):
        state.hash_keys[e, place] = np.uint64(0)
    for block in range(state.block_hash.shape[1]):
        state.block_hash[e, block] = np.uint64(0)
    if state.radix[e] != 0:
        for block in range(state.block_parent.shape[1]):
            state.block_parent[e, block] = -1
            state.block_children[e, block] = 0
    for client in range(state.client_inside.shape[1]):
        state.client_inside[e, client] = 0
    if state.max_adapters[e] > 0:
        forget_adapters(state, e)
    state.line_held_by[e] = NOT_HELD
    state.num_swapped_blocks[e] = 0
    state.pending_swaps[e] = 0
    state.pending_copies[e] = 0
    state.has_evicted[e] = 0
    state.decodes_left_out[e] = 0
    state.wave_groups[e] = 0
    state.wave_done[e] = 0
    state.steps_to_fetch[e] = 0
