"""Phase of the waiting sequences: admission from the head of the line until one does not fit (rules 6 to 10)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.adapters import (
    HEAD_IS_FINE,
    NOBODY,
    count_running_adapters,
    first_that_may_join,
    put_back,
    use_adapter,
)
from hermes_sim.batching.batch import has_ended, note, tokens_to_do
from hermes_sim.batching.line import leave_line
from hermes_sim.batching.packing import cost_tokens_with
from hermes_sim.batching.preemption import num_host_blocks
from hermes_sim.batching.running import give_tokens, num_drafts_of
from hermes_sim.batching.while_waiting import let_one_go, own_again
from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import (
    ADMITTED,
    FORKED,
    HAS_KV,
    HELD_BY_BATCH,
    HELD_BY_BUDGET,
    HELD_BY_KV,
    LOADED,
    NOT_HELD,
    NUM_SHARES,
    PREEMPTED,
    SWAPPED_IN,
)
from hermes_sim.state.blocks import (
    count_hits,
    drop_out_of_window,
    first_in_window,
    grow,
    num_missing_blocks,
    num_pool_blocks,
    release,
    seal,
    seal_private,
    take_hits,
    take_slot,
)
from hermes_sim.state.clients import charge_prompt
from hermes_sim.state.queues import FAIR_SHARE, LONGEST_PREFIX, bring_forward, comes_before, pop
from hermes_sim.state.sequences import final_output

MOST_LOOKED_AT = 128
"""longest_prefix: rows of the line that are compared (SGLang falls back to the order of arrival beyond 128)."""


@compiled
def choose_head(state: Any, e: int, queue: int) -> None:
    """Orders that choose when they admit: the best row comes to the head of the line."""
    order = state.queue_order[e]
    if order not in (FAIR_SHARE, LONGEST_PREFIX):
        return
    best_before = np.int64(-1)
    best = np.int64(0)
    before = np.int64(-1)
    row = np.int64(state.queue_head[queue])
    number = 0
    while row >= 0 and (order == FAIR_SHARE or number < MOST_LOOKED_AT):
        if order == FAIR_SHARE:
            value = -state.client_counter[e, state.row_client[row]]
        elif state.row_flags[row] & HAS_KV:
            value = np.int64(state.slot_computed[e, state.row_slot[row]]) // state.block_tokens[e]
        elif state.row_swapped[row] > 0:
            value = np.int64(state.row_swapped[row]) // state.block_tokens[e]
        else:
            value, _ = count_hits(state, e, row, np.int64(state.row_prompt[row]) + state.row_generated[row])
        if number == 0 or value > best:
            best, best_before = value, before
        before = row
        row = np.int64(state.row_next[row])
        number += 1
    if best_before >= 0:
        bring_forward(state, queue, best_before)


@compiled
def blocks_to_come(state: Any, e: int, row: int, num_owned: int) -> int:
    """Blocks that a sequence will need beyond those it owns if it generates all its output."""
    total = np.int64(state.row_prompt[row]) + max(final_output(state, row), 1) - 1
    block_tokens = state.block_tokens[e]
    return max((total + block_tokens - 1) // block_tokens - num_owned, np.int64(0))


@compiled
def reserve_of_running(state: Any, e: int) -> int:
    """Blocks that the running sequences will still need."""
    number = np.int64(0)
    if state.output_reserve_frac[e] == 0.0:
        return number
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        if not has_ended(state, e, slot):
            number += blocks_to_come(state, e, np.int64(state.slot_row[e, slot]), np.int64(state.slot_blocks[e, slot]))
    return number


@compiled
def join(state: Any, e: int, row: int, slot: int, time_s: float) -> None:
    """Append to the running list; note when its service starts or goes on."""
    if state.max_adapters[e] > 0:
        use_adapter(state, e, row)
    for share in range(NUM_SHARES):
        state.slot_base[e, slot, share] = state.shares[e, share]
    state.running[e, state.num_running[e]] = slot
    state.num_running[e] += 1
    if np.isnan(state.row_start_s[row]):
        state.row_start_s[row] = time_s
        leave_line(state, e, row, time_s)
    if not np.isnan(state.row_interrupted_s[row]):
        state.row_preempted_s[row] += time_s - state.row_interrupted_s[row]
        state.row_interrupted_s[row] = np.nan


@compiled
def missing_with_kv(state: Any, e: int, row: int) -> int:
    """Blocks that a visit which has its KV lacks for one more token."""
    slot = np.int64(state.row_slot[row])
    block_tokens = state.block_tokens[e]
    num_needed = (state.slot_computed[e, slot] + 1 + block_tokens - 1) // block_tokens
    return num_missing_blocks(state, e, slot, num_needed) - state.num_free_blocks[e]


@compiled
def make_way(state: Any, e: int, queue: int, time_s: float) -> bool:
    """Nothing runs and the head of the line does not fit: blocks are held by others that wait. False: not even that.

    KV that is kept for requests which are away goes first. Else the first of those that fits becomes the head; if none
    does, the last one gives its KV up and computes it again.
    """
    if let_one_go(state, e, time_s):
        return True
    before = np.int64(-1)
    row = np.int64(state.queue_head[queue])
    last = np.int64(-1)
    while row >= 0:
        if state.row_flags[row] & HAS_KV:
            last = row
            is_prompt = state.row_flags[row] & LOADED != 0
            if before >= 0 and not is_prompt and missing_with_kv(state, e, row) <= 0:
                bring_forward(state, queue, before)
                return True
        before = row
        row = np.int64(state.row_next[row])
    if last < 0:
        return False
    slot = np.int64(state.row_slot[last])
    done = np.int64(state.slot_done[e, slot])
    state.row_flags[last] &= np.uint8(255 - HAS_KV - FORKED - LOADED)
    state.row_preemptions[last] += 1
    state.total_preemptions[e] += 1
    state.total_recomputed_tokens[e] += done
    state.load_tokens[e] += done
    note(state, e, PREEMPTED, last, done)
    seal_private(state, e, slot)
    release(state, e, slot)
    return True


@compiled
def bring_kv_forward(state: Any, queue: int) -> bool:
    """The first visit in line that has its KV becomes the head."""
    row = np.int64(state.queue_head[queue])
    if row >= 0 and state.row_flags[row] & HAS_KV:
        return True
    before = row
    while before >= 0 and state.row_next[before] >= 0:
        if state.row_flags[state.row_next[before]] & HAS_KV:
            bring_forward(state, queue, before)
            return True
        before = np.int64(state.row_next[before])
    return False


@compiled
def admit_with_kv(state: Any, e: int, queue: int, left: int, time_s: float) -> int:
    """Admit the head of the line, whose KV is in its slot. Returns the tokens it got, or -1 if blocks are missing.

    Where prompts and decodes do not mix it joins the running list and gets its token with the other decodes.
    """
    row = np.int64(state.queue_head[queue])
    slot = np.int64(state.row_slot[row])
    block_tokens = state.block_tokens[e]
    to_do = tokens_to_do(state, e, slot)
    num_tokens = min(to_do, left)
    num_drafts = np.int64(0)
    if to_do == 1 and state.mix_steps[e] != 0:
        num_drafts = num_drafts_of(state, e, slot, left)
        num_tokens += num_drafts
    drop_out_of_window(state, e, slot)
    num_needed = (state.slot_computed[e, slot] + num_tokens + block_tokens - 1) // block_tokens
    if num_drafts > 0 and num_missing_blocks(state, e, slot, num_needed) > state.num_free_blocks[e]:
        num_tokens, num_drafts = np.int64(1), np.int64(0)
        num_needed = (state.slot_computed[e, slot] + block_tokens) // block_tokens
    if num_missing_blocks(state, e, slot, num_needed) > state.num_free_blocks[e]:
        return np.int64(-1)
    pop(state, queue)
    computed = np.int64(state.slot_computed[e, slot])
    if state.row_flags[row] & FORKED and computed > state.slot_blocks[e, slot] * block_tokens:
        state.pending_copies[e] += 1
        state.total_copied_blocks[e] += 1
    state.row_flags[row] &= np.uint8(255 - HAS_KV - FORKED - LOADED)
    join(state, e, row, slot, time_s)
    note(state, e, ADMITTED, row, computed)
    if state.mix_steps[e] == 0 and to_do == 1:
        grow(state, e, slot, num_needed)
        return np.int64(0)
    give_tokens(state, e, slot, num_tokens, num_drafts)
    return num_tokens


@compiled
def swap_in(state: Any, e: int, row: int) -> bool:
    """The head of the line gets a slot and its KV back from the host, if there is room; then it has its KV."""
    total = np.int64(state.row_prompt[row]) + state.row_generated[row]
    block_tokens = state.block_tokens[e]
    if state.num_free_slots[e] == 0:
        return False
    computed = np.int64(state.row_swapped[row])
    first = first_in_window(state, e, computed)
    if num_pool_blocks(state, e, (total + block_tokens - 1) // block_tokens) - first > state.num_free_blocks[e]:
        return False
    slot = take_slot(state, e, row)
    state.slot_computed[e, slot] = computed
    state.slot_done[e, slot] = computed
    state.slot_first[e, slot] = first
    state.slot_blocks[e, slot] = first
    grow(state, e, slot, (computed + block_tokens - 1) // block_tokens)
    seal(state, e, slot, computed)
    number = num_host_blocks(state, e, computed)
    state.row_swapped[row] = 0
    state.num_swapped_blocks[e] -= number
    state.pending_swaps[e] += number
    state.total_swapped_blocks[e] += number
    state.row_flags[row] |= np.uint8(HAS_KV)
    if state.row_generated[row] == 0:  # not preempted: its request was away
        own_again(state, e, slot, row)
        state.row_loaded[row] = computed
    note(state, e, SWAPPED_IN, row, number)
    return True


@compiled
def admit_new(state: Any, e: int, queue: int, num_hits: int, num_tokens: int, time_s: float) -> int:
    """The head of the line starts with what the prefix cache holds of it and its first tokens. Returns its slot."""
    row = np.int64(pop(state, queue))
    block_tokens = state.block_tokens[e]
    total = np.int64(state.row_prompt[row]) + state.row_generated[row]
    num_cached = num_hits * block_tokens
    slot = take_slot(state, e, row)
    take_hits(state, e, slot, num_hits)
    state.slot_computed[e, slot] = num_cached
    state.slot_done[e, slot] = num_cached
    state.load_tokens[e] -= num_cached
    state.total_cached_tokens[e] += num_cached
    state.total_hit_blocks[e] += num_hits
    state.total_looked_up_blocks[e] += (total - 1) // block_tokens
    if state.row_preemptions[row] > 0:
        state.total_recomputed_tokens[e] -= num_cached
    else:
        state.row_cached[row] = num_cached
        charge_prompt(state, e, row)
    join(state, e, row, slot, time_s)
    note(state, e, ADMITTED, row, num_cached)
    give_tokens(state, e, slot, num_tokens, 0)
    return slot


@compiled
def waits_longer(state: Any, e: int, row: int) -> bool:
    """Whether a prompt that came before this one waits for blocks that its KV can be sent to."""
    first = np.int64(state.reserve_head[e])
    return state.row_loaded[first] > 0 and comes_before(state, state.queue_order[e], first, row)


@compiled
def admit_loaded(state: Any, e: int, queue: int, num_tokens: int, time_s: float) -> int:
    """The head of the line, whose slot holds what a KV store has sent, gets its first tokens. Returns its slot."""
    row = np.int64(pop(state, queue))
    slot = np.int64(state.row_slot[row])
    state.row_flags[row] &= np.uint8(255 - HAS_KV - LOADED)
    if state.row_preemptions[row] == 0:
        charge_prompt(state, e, row)
    join(state, e, row, slot, time_s)
    note(state, e, ADMITTED, row, np.int64(state.slot_computed[e, slot]))
    give_tokens(state, e, slot, num_tokens, 0)
    return slot


@compiled
def fetch_requests(state: Any, e: int, time_s: float) -> None:
    """Whoever has arrived by now may be admitted; while sequences decode, that is so in every so many-th step only."""
    if state.num_running[e] == 0 or state.steps_to_fetch[e] <= 1:
        state.fetched_s[e] = time_s
        state.steps_to_fetch[e] = state.receive_every_steps[e]
    else:
        state.steps_to_fetch[e] -= 1


@compiled
def schedule_waiting(state: Any, e: int, left: int, time_s: float) -> int:
    """Admit from the head of the line. Returns the budget that is left."""
    queue = state.first_queue[e]
    block_tokens = state.block_tokens[e]
    budget = state.max_num_batched_tokens[e]
    threshold = state.prefill_threshold[e]
    in_a_wave = state.by_layers[e] != 0 and state.wave_groups[e] > 0
    to_come = reserve_of_running(state, e)
    stopped_by = NOT_HELD
    num_prompts = np.int64(0)
    is_chosen = False
    passed_over = np.int64(HEAD_IS_FINE)  # the last row in line that another adapter's sequence was brought before
    if state.max_adapters[e] > 0:
        count_running_adapters(state, e)
    while state.queue_head[queue] >= 0 and state.num_running[e] < state.max_num_seqs[e] and left > 0:
        # if all that ran have preempted themselves, those who hold blocks go first: the others would come back for ever
        if not is_chosen and not (
            state.num_running[e] == 0 and state.has_evicted[e] != 0 and bring_kv_forward(state, queue)
        ):
            choose_head(state, e, queue)
        is_chosen = False
        if state.max_adapters[e] > 0:
            passed_over = first_that_may_join(state, e, queue)
            if passed_over == NOBODY:
                stopped_by = HELD_BY_BATCH
                break
            if passed_over >= 0:
                bring_forward(state, queue, passed_over)
        row = np.int64(state.queue_head[queue])
        if state.receive_every_steps[e] > 1 and state.row_arrival_s[row] > state.fetched_s[e]:
            break
        total = np.int64(state.row_prompt[row]) + state.row_generated[row]
        if state.row_swapped[row] > 0 and not swap_in(state, e, row):
            if state.num_running[e] == 0 and make_way(state, e, queue, time_s):
                is_chosen = True
                continue
            stopped_by = HELD_BY_KV
            break
        is_loaded = state.row_flags[row] & LOADED != 0
        if state.row_flags[row] & HAS_KV and not is_loaded:
            num_tokens = admit_with_kv(state, e, queue, left, time_s)
            if num_tokens < 0:
                if state.num_running[e] == 0 and make_way(state, e, queue, time_s):
                    is_chosen = True
                    continue
                stopped_by = HELD_BY_KV
                break
            passed_over = np.int64(HEAD_IS_FINE)
            left -= num_tokens
            if state.output_reserve_frac[e] > 0.0:
                to_come += blocks_to_come(state, e, row, np.int64(state.slot_blocks[e, state.row_slot[row]]))
            continue
        if in_a_wave:
            stopped_by = HELD_BY_BUDGET
            break
        if state.reserve_head[e] >= 0 and not is_loaded and waits_longer(state, e, row):
            stopped_by = HELD_BY_KV
            break
        if state.num_free_slots[e] == 0 and not is_loaded:
            if state.num_running[e] == 0 and make_way(state, e, queue, time_s):
                is_chosen = True
                continue
            stopped_by = HELD_BY_BATCH
            break
        slot = np.int64(state.row_slot[row])
        if is_loaded:
            drop_out_of_window(state, e, slot)
            num_hits, num_unowned = np.int64(0), np.int64(0)
            num_cached = np.int64(state.slot_computed[e, slot])
        else:
            num_hits, num_unowned = count_hits(state, e, row, total)
            num_cached = num_hits * block_tokens
        num_tokens = total - num_cached
        if state.chunk_prefill[e] != 0:
            num_tokens = min(num_tokens, left)
            if 0 < threshold < num_tokens:
                num_tokens = threshold
        elif state.prompt_padding[e] != 0:
            if num_prompts > 0 and cost_tokens_with(state, e, num_tokens) > budget:
                stopped_by = HELD_BY_BUDGET
                break
        elif num_tokens > left and (num_prompts > 0 or num_tokens <= budget):
            stopped_by = HELD_BY_BUDGET
            break
        whole = state.full_sequence_gate[e] != 0 and state.full_layers[e] != 0
        num_gate = total if whole else num_cached + num_tokens
        num_blocks = (num_gate + block_tokens - 1) // block_tokens
        available = state.num_free_blocks[e] - num_unowned
        own_to_come = np.int64(0)
        if state.output_reserve_frac[e] > 0.0:
            own_to_come = blocks_to_come(state, e, row, (total + block_tokens - 1) // block_tokens)
        if state.num_running[e] > 0:
            available -= state.watermark_blocks[e]
            available -= np.int64(np.floor(state.output_reserve_frac[e] * (to_come + own_to_come)))
        num_missing = num_pool_blocks(state, e, num_blocks) - num_hits
        if is_loaded:
            num_missing = num_missing_blocks(state, e, slot, num_blocks)
        if num_missing > available:
            if state.num_running[e] == 0 and make_way(state, e, queue, time_s):
                is_chosen = True
                continue
            stopped_by = HELD_BY_KV
            break
        if is_loaded:
            slot = admit_loaded(state, e, queue, num_tokens, time_s)
        else:
            slot = admit_new(state, e, queue, num_hits, num_tokens, time_s)
        state.steps_to_fetch[e] = 0  # a prompt is followed by a look at who has come meanwhile
        if state.output_reserve_frac[e] > 0.0:
            to_come += blocks_to_come(state, e, row, np.int64(state.slot_blocks[e, slot]))
        passed_over = np.int64(HEAD_IS_FINE)
        num_prompts += 1
        left -= num_tokens
    if passed_over >= 0:
        put_back(state, queue, passed_over)
    if state.num_running[e] >= state.max_num_seqs[e]:
        stopped_by = HELD_BY_BATCH
    elif left <= 0:
        stopped_by = HELD_BY_BUDGET
    state.line_stopped_by[e] = stopped_by
    return left
