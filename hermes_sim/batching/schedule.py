"""The compiled loop that fills one step of a token engine. The policies' switches decide its branches.

Mirrors vLLM V1's scheduler: running sequences first, then waiting ones, one token budget. Rules by number:
docs/modelling.md, "Who runs in a step".
tests/reference_engine.py is the readable version; tests hold the two to the same integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import HAS_KV, NUM_SHARES
from hermes_sim.state.blocks import count_hits, grow, release, take_hits, take_slot
from hermes_sim.state.queues import goes_before, pop, push_by_priority, push_front

# Places in the description of a batch (state.scratch_batch).
NUM_TOKENS = 0
NUM_SAMPLED = 1
NUM_DECODE = 2
DECODE_CONTEXT_SUM = 3
DECODE_CONTEXT_MAX = 4
NUM_PREFILL = 5
PREFILL_TOKEN_PAIRS = 6
PREFILL_CONTEXT_SUM = 7


@compiled
def tokens_to_do(state: Any, e: int, slot: int) -> int:
    """Prompt + generated - computed (rule 1: no phases)."""
    row = state.slot_row[e, slot]
    return np.int64(state.row_prompt[row]) + state.row_generated[row] - state.slot_computed[e, slot]


@compiled
def is_decoding(state: Any, e: int, slot: int) -> bool:
    """Up to date but for its last generated token."""
    return state.row_generated[state.slot_row[e, slot]] >= 1 and tokens_to_do(state, e, slot) == 1


@compiled
def find_victim(state: Any, e: int) -> int:
    """Place in the running list of the sequence to preempt (rule 4), or -1; sequences in flight stay."""
    found = -1
    for place in range(state.num_running[e] - 1, -1, -1):
        slot = state.running[e, place]
        if state.slot_lane[e, slot] >= 0:
            continue
        if state.by_priority[e] == 0:
            return place
        if found < 0 or goes_before(state, state.slot_row[e, state.running[e, found]], state.slot_row[e, slot]):
            found = place
    return found


@compiled
def preempt(state: Any, e: int, place: int, time_s: float) -> None:
    """Take a sequence off the running list; it keeps its tokens and loses its KV (rule 5)."""
    slot = state.running[e, place]
    row = np.int64(state.slot_row[e, slot])
    if is_decoding(state, e, slot) and state.num_lanes[e] == 1:
        for share in range(NUM_SHARES):
            state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
        if np.isnan(state.row_last_token_s[row]):
            state.row_last_token_s[row] = time_s
    computed = np.int64(state.slot_computed[e, slot])
    state.row_interrupted_s[row] = time_s
    state.row_preemptions[row] += 1
    state.total_preemptions[e] += 1
    state.total_recomputed_tokens[e] += computed
    state.load_tokens[e] += computed
    state.slot_scheduled[e, slot] = 0
    release(state, e, slot)
    for later in range(place, state.num_running[e] - 1):
        state.running[e, later] = state.running[e, later + 1]
    state.num_running[e] -= 1
    if state.by_priority[e] != 0:
        push_by_priority(state, state.first_queue[e], row)
    else:
        push_front(state, state.first_queue[e], row)


@compiled
def schedule_running(state: Any, e: int, time_s: float) -> Any:
    """Phase one. Returns (budget left, whether anything was preempted)."""
    left = state.max_num_batched_tokens[e]
    block_tokens = state.block_tokens[e]
    threshold = state.prefill_threshold[e]
    preempted = False
    place = 0
    while place < state.num_running[e]:
        slot = np.int64(state.running[e, place])
        if state.slot_lane[e, slot] >= 0:
            place += 1
            continue
        num_tokens = min(tokens_to_do(state, e, slot), left)
        if 0 < threshold < num_tokens:
            num_tokens = threshold
        if num_tokens <= 0:
            place += 1
            continue
        num_needed = (state.slot_computed[e, slot] + num_tokens + block_tokens - 1) // block_tokens
        stays = True
        while stays and num_needed - state.slot_blocks[e, slot] > state.num_free_blocks[e]:
            victim = find_victim(state, e)
            assert victim >= 0  # the sequence itself is one
            preempted = True
            left += state.slot_scheduled[e, state.running[e, victim]]
            stays = victim != place
            preempt(state, e, victim, time_s)
            if victim < place:
                place -= 1
        if not stays:
            return left, True
        grow(state, e, slot, num_needed)
        state.slot_scheduled[e, slot] = num_tokens
        left -= num_tokens
        place += 1
    return left, preempted


@compiled
def admit(state: Any, e: int, row: int, slot: int, num_tokens: int, time_s: float) -> None:
    """Append to the running list; note when its service starts or goes on."""
    grow(
        state,
        e,
        slot,
        (state.slot_computed[e, slot] + num_tokens + state.block_tokens[e] - 1) // state.block_tokens[e],
    )
    state.slot_scheduled[e, slot] = num_tokens
    for share in range(NUM_SHARES):
        state.slot_base[e, slot, share] = state.shares[e, share]
    state.running[e, state.num_running[e]] = slot
    state.num_running[e] += 1
    if np.isnan(state.row_start_s[row]):
        state.row_start_s[row] = time_s
    if not np.isnan(state.row_interrupted_s[row]):
        state.row_preempted_s[row] += time_s - state.row_interrupted_s[row]
        state.row_interrupted_s[row] = np.nan


@compiled
def bring_kv_forward(state: Any, queue: int) -> bool:
    """Move the first visit that already holds blocks to the head of the line; False if there is none.

    Without this an empty engine could wait for blocks that only those behind the head hold.
    """
    before = state.queue_head[queue]
    while before >= 0 and state.row_next[before] >= 0:
        row = np.int64(state.row_next[before])
        if state.row_flags[row] & HAS_KV:
            state.row_next[before] = state.row_next[row]
            if state.row_next[before] < 0:
                state.queue_tail[queue] = before
            state.queue_length[queue] -= 1
            push_front(state, queue, row)
            return True
        before = row
    return False


@compiled
def schedule_waiting(state: Any, e: int, left: int, time_s: float) -> None:
    """Phase two: admit from the head of the line until one does not fit (rule 6)."""
    queue = state.first_queue[e]
    block_tokens = state.block_tokens[e]
    budget = state.max_num_batched_tokens[e]
    threshold = state.prefill_threshold[e]
    some_prompt = False
    while state.queue_head[queue] >= 0 and state.num_running[e] < state.max_num_seqs[e] and left > 0:
        row = np.int64(state.queue_head[queue])
        total = np.int64(state.row_prompt[row]) + state.row_generated[row]
        if state.row_flags[row] & HAS_KV:
            slot = np.int64(state.row_slot[row])
            num_tokens = min(total - state.slot_computed[e, slot], left)
            num_needed = (state.slot_computed[e, slot] + num_tokens + block_tokens - 1) // block_tokens
            if num_needed - state.slot_blocks[e, slot] > state.num_free_blocks[e]:
                break
            pop(state, queue)
            state.row_flags[row] &= np.uint8(255 - HAS_KV)
            admit(state, e, row, slot, num_tokens, time_s)
            left -= num_tokens
            continue
        if state.num_free_slots[e] == 0:
            if state.num_running[e] == 0 and bring_kv_forward(state, queue):
                continue
            break
        num_hits, num_unowned = count_hits(state, e, row, total)
        num_cached = num_hits * block_tokens
        num_tokens = total - num_cached
        if state.chunk_prefill[e] != 0:
            num_tokens = min(num_tokens, left)
            if 0 < threshold < num_tokens:
                num_tokens = threshold
        elif num_tokens > left and (some_prompt or num_tokens <= budget):
            break
        num_gate = total if state.full_sequence_gate[e] != 0 else num_cached + num_tokens
        available = state.num_free_blocks[e] - num_unowned
        if state.num_running[e] > 0:
            available -= state.watermark_blocks[e]
        if (num_gate + block_tokens - 1) // block_tokens - num_hits > available:
            if state.num_running[e] == 0 and bring_kv_forward(state, queue):
                continue
            break
        pop(state, queue)
        slot = take_slot(state, e, row)
        take_hits(state, e, slot, num_hits)
        state.slot_computed[e, slot] = num_cached
        state.load_tokens[e] -= num_cached
        state.total_cached_tokens[e] += num_cached
        if state.row_preemptions[row] > 0:
            state.total_recomputed_tokens[e] -= num_cached
        else:
            state.row_cached[row] = num_cached
        admit(state, e, row, slot, num_tokens, time_s)
        some_prompt = True
        left -= num_tokens


@compiled
def describe_batch(state: Any, e: int, lane: int) -> None:
    """Sums of the scheduled tokens, as the cost model wants them (rule 16), and the lane they run in."""
    batch = state.scratch_batch
    batch[:] = 0
    num_scheduled = 0
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        num_tokens = np.int64(state.slot_scheduled[e, slot])
        if num_tokens == 0 or state.slot_lane[e, slot] >= 0:
            continue
        state.slot_lane[e, slot] = lane
        num_scheduled += 1
        computed = np.int64(state.slot_computed[e, slot])
        to_do = tokens_to_do(state, e, slot)
        batch[NUM_TOKENS] += num_tokens
        if num_tokens == to_do:
            batch[NUM_SAMPLED] += 1
        if to_do == 1 and state.row_generated[state.slot_row[e, slot]] >= 1:
            batch[NUM_DECODE] += 1
            batch[DECODE_CONTEXT_SUM] += computed + 1
            batch[DECODE_CONTEXT_MAX] = max(batch[DECODE_CONTEXT_MAX], computed + 1)
        else:
            batch[NUM_PREFILL] += 1
            batch[PREFILL_TOKEN_PAIRS] += num_tokens * computed + num_tokens * (num_tokens + 1) // 2
            batch[PREFILL_CONTEXT_SUM] += computed + num_tokens
    state.lane_num_scheduled[e, lane] = num_scheduled


@compiled
def schedule(state: Any, e: int, lane: int, time_s: float) -> int:
    """Decide the tokens of one step (state.slot_scheduled, state.scratch_batch). Returns their number.

    The only running sequence may have preempted itself; vLLM then runs an empty step, which takes no time here.
    """
    while True:
        left, preempted = schedule_running(state, e, time_s)
        if not preempted:
            schedule_waiting(state, e, left, time_s)
        describe_batch(state, e, lane)
        if state.scratch_batch[NUM_TOKENS] > 0 or not preempted:
            return np.int64(state.scratch_batch[NUM_TOKENS])
