"""Visits that nobody wants any more leave an engine before their end: a client has gone, another replica was first.

Those that wait leave at once. Those that run leave between two steps, as vLLM's engine core takes requests to abort
(`EngineCore`: its queue of inputs is read before each step): their blocks are free when the step in flight has ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import note
from hermes_sim.batching.decided import place_in_running
from hermes_sim.batching.line import note_departure
from hermes_sim.batching.preemption import drop_from_flight, num_host_blocks
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.settle import settle
from hermes_sim.state.arrays import JOBS, LEAVING, NUM_SHARES, WATCHED, WITHDRAWN
from hermes_sim.state.blocks import release
from hermes_sim.state.clients import client_leaves
from hermes_sim.state.queues import take_out
from hermes_sim.state.sequences import final_output


@compiled
def withdraw(state: Any, e: int, rows: Any) -> None:
    """Rows of passes that are in the engine, or were promised blocks there, go.

    `rows`: all of a pass, those too that its sequences have not become yet. The caller serves whoever waits for blocks.
    """
    if state.engine_kind[e] == JOBS:
        for row in rows:
            withdraw_job(state, e, row)
        return
    for row in rows:
        if not (withdraw_promise(state, e, row) or withdraw_waiting(state, e, row) or withdraw_promised(state, e, row)):
            state.row_flags[row] |= np.uint8(LEAVING)
            state.num_leaving[e] += 1
    if state.num_leaving[e] > 0 and state.num_in_flight[e] == 0:
        settle(state, e)
        let_go(state, e)


@compiled
def withdraw_job(state: Any, e: int, row: int) -> None:
    """Out of its line; a batch in flight goes on, and what it brings is thrown away."""
    found = False
    for queue in range(state.first_queue[e], state.first_queue[e] + state.num_queues[e]):
        found = found or take_out(state, queue, row)
    for lane in range(state.num_lanes[e]):
        if np.isinf(state.lane_end_s[e, lane]):
            continue
        for place in range(state.lane_num_scheduled[e, lane]):
            if state.lane_jobs[e, lane, place] == row:
                state.lane_jobs[e, lane, place] = -2 - row
                found = True
    if found:
        state.load_requests[e] -= 1
        state.load_tokens[e] -= np.int64(state.row_units[row])
        stop_watching(state, e, row)


@compiled
def withdraw_promise(state: Any, e: int, row: int) -> bool:
    """A visit that waits for blocks, to which its KV would be sent; False: it is not among those."""
    before = -1
    other = state.reserve_head[e]
    while other >= 0 and other != row:
        before = other
        other = state.row_next[other]
    if other < 0:
        return False
    if before < 0:
        state.reserve_head[e] = state.row_next[row]
    else:
        state.row_next[before] = state.row_next[row]
    if state.reserve_tail[e] == row:
        state.reserve_tail[e] = before
    state.row_next[row] = -1
    state.num_watched[e] -= 1
    num_left = final_output(state, row) - state.row_generated[row]
    if state.row_generated[row] == 0:
        num_left = state.row_prompt[row] + max(num_left - 1, 0)
    take_load(state, e, row, num_left)
    return True


@compiled
def withdraw_waiting(state: Any, e: int, row: int) -> bool:
    """A visit that stands in line; False: it does not."""
    if not take_out(state, state.first_queue[e], row):
        return False
    note_departure(state, e)
    forget_sequence(state, e, row)
    return True


@compiled
def withdraw_promised(state: Any, e: int, row: int) -> bool:
    """A visit that has blocks, and waits for the KV that is on its way to them, or sent from them; False: it runs."""
    slot = np.int64(state.row_slot[row])
    if slot < 0 or state.row_engine[row] != e or place_in_running(state, e, row) >= 0:
        return False
    if np.isnan(state.row_finish_s[row]):
        take_load(state, e, row, num_left_tokens(state, e, row))
    release(state, e, slot)
    return True


@compiled
def let_go(state: Any, e: int) -> None:
    """No step that could not do without them is in flight: those that are marked leave the running list and the line.

    A sequence may have been handed on, or forked, since it was marked: all rows of its pass are.
    """
    place = 0
    while place < state.num_running[e]:
        slot = np.int64(state.running[e, place])
        row = np.int64(state.slot_row[e, slot])
        if state.row_flags[row] & LEAVING == 0:
            place += 1
            continue
        left = state.row_prompt[row] + state.row_generated[row] - state.slot_done[e, slot]
        if state.share_by_sums[e] != 0 and left == 1:  # it decodes: its shares are differences of running sums
            for share in range(NUM_SHARES):
                state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
        drop_from_flight(state, e, slot)
        forget_sequence(state, e, row)
        for later in range(place, state.num_running[e] - 1):
            state.running[e, later] = state.running[e, later + 1]
        state.num_running[e] -= 1
    queue = state.first_queue[e]
    row = np.int64(state.queue_head[queue])
    while row >= 0:
        after = np.int64(state.row_next[row])
        if state.row_flags[row] & LEAVING != 0:
            take_out(state, queue, row)
            forget_sequence(state, e, row)
        row = after
    note_departure(state, e)
    state.num_leaving[e] = 0


@compiled
def forget_sequence(state: Any, e: int, row: int) -> None:
    """A sequence that is in no list any more: its load, its blocks here and on the host, and who watches it."""
    note(state, e, WITHDRAWN, row, np.int64(state.row_generated[row]))
    take_load(state, e, row, num_left_tokens(state, e, row))
    client_leaves(state, e, row)
    if state.row_slot[row] >= 0:
        release(state, e, np.int64(state.row_slot[row]))
    if state.row_swapped[row] > 0:
        state.num_swapped_blocks[e] -= num_host_blocks(state, e, np.int64(state.row_swapped[row]))
        state.row_swapped[row] = 0
    visit = np.int64(state.row_parent[row])
    if visit < 0:
        visit = np.int64(row)
    state.row_open_samples[visit] -= 1
    if state.row_open_samples[visit] == 0:
        stop_watching(state, e, visit)


@compiled
def stop_watching(state: Any, e: int, row: int) -> None:
    """Nobody will be told of the end of this visit, nor of those that its sequence would have gone on as."""
    while row >= 0:
        if state.row_flags[row] & WATCHED:
            state.num_watched[e] -= 1
        row = np.int64(state.row_continues_as[row])


@compiled
def num_left_tokens(state: Any, e: int, row: int) -> int:
    """Tokens that the sequence would still have computed here."""
    total = np.int64(state.row_prompt[row]) + max(final_output(state, row) - 1, 0)
    slot = np.int64(state.row_slot[row])
    return total - state.row_swapped[row] if slot < 0 else total - state.slot_done[e, slot]


@compiled
def take_load(state: Any, e: int, row: int, num_left: int) -> None:
    """The engine's load without this sequence."""
    state.load_requests[e] -= 1
    state.load_output_tokens[e] -= final_output(state, row) - state.row_generated[row]
    state.load_tokens[e] -= num_left
