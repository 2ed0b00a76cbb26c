"""Decisions that a policy in Python has taken for one step: checked and carried out as the compiled policies' are."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import tokens_to_do
from hermes_sim.batching.preemption import preempt
from hermes_sim.batching.running import give_tokens
from hermes_sim.batching.waiting import admit_new, admit_with_kv, swap_in
from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import HAS_KV
from hermes_sim.state.blocks import count_hits, drop_out_of_window, num_missing_blocks, num_pool_blocks
from hermes_sim.state.queues import bring_forward


@compiled
def carry_out(state: Any, e: int, decisions: Any, time_s: float) -> int:
    """`decisions`: [number of rows to preempt, those rows, then pairs of (row, tokens)].

    Returns 0, or 1 + the index of the first decision (preemptions first) that the engine cannot carry out.
    """
    num_preempted = decisions[0]
    for index in range(num_preempted):
        place = place_in_running(state, e, decisions[1 + index])
        if place < 0:
            return 1 + index
        preempt(state, e, place, time_s)
    left = state.max_num_batched_tokens[e]
    number = (decisions.size - 1 - num_preempted) // 2
    for index in range(number):
        row = decisions[1 + num_preempted + 2 * index]
        num_tokens = decisions[2 + num_preempted + 2 * index]
        if num_tokens < 1 or num_tokens > left:
            return 1 + num_preempted + index
        place = place_in_running(state, e, row)
        if place >= 0:
            done = run_on(state, e, np.int64(state.running[e, place]), num_tokens)
        else:
            done = start_row(state, e, row, num_tokens, time_s)
        if not done:
            return 1 + num_preempted + index
        left -= num_tokens
    return 0


@compiled
def place_in_running(state: Any, e: int, row: int) -> int:
    """Where a row stands in the running list, or -1."""
    for place in range(state.num_running[e]):
        if state.slot_row[e, state.running[e, place]] == row:
            return place
    return -1


@compiled
def run_on(state: Any, e: int, slot: int, num_tokens: int) -> bool:
    """Tokens for a running sequence, if it has so many to do and blocks are free."""
    if state.slot_scheduled[e, slot] > 0 or num_tokens > tokens_to_do(state, e, slot):
        return False
    drop_out_of_window(state, e, slot)
    block_tokens = state.block_tokens[e]
    num_needed = (state.slot_computed[e, slot] + num_tokens + block_tokens - 1) // block_tokens
    if num_missing_blocks(state, e, slot, num_needed) > state.num_free_blocks[e]:
        return False
    give_tokens(state, e, slot, num_tokens, 0)
    return True


@compiled
def bring_row_forward(state: Any, queue: int, row: int) -> bool:
    """The row becomes the head of the line; False if it does not wait here."""
    if state.queue_head[queue] == row:
        return True
    before = np.int64(state.queue_head[queue])
    while before >= 0 and state.row_next[before] != row:
        before = np.int64(state.row_next[before])
    if before < 0:
        return False
    bring_forward(state, queue, before)
    return True


@compiled
def start_row(state: Any, e: int, row: int, num_tokens: int, time_s: float) -> bool:
    """Admit a waiting row with its first tokens, if a place and blocks are free."""
    queue = state.first_queue[e]
    if state.num_running[e] >= state.max_num_seqs[e] or not bring_row_forward(state, queue, row):
        return False
    if state.row_swapped[row] > 0 and not swap_in(state, e, row):
        return False
    if state.row_flags[row] & HAS_KV:
        return admit_with_kv(state, e, queue, num_tokens, time_s) == num_tokens
    total = np.int64(state.row_prompt[row]) + state.row_generated[row]
    block_tokens = state.block_tokens[e]
    num_hits, num_unowned = count_hits(state, e, row, total)
    num_blocks = (num_hits * block_tokens + num_tokens + block_tokens - 1) // block_tokens
    if (
        state.num_free_slots[e] == 0
        or num_tokens > total - num_hits * block_tokens
        or num_pool_blocks(state, e, num_blocks) - num_hits > state.num_free_blocks[e] - num_unowned
    ):
        return False
    admit_new(state, e, queue, num_hits, num_tokens, time_s)
    return True
