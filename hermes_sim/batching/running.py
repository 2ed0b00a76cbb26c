"""Phase of the running sequences: tokens in the order of the list, blocks for them, preemption where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import has_ended, is_decoding, note, tokens_to_do
from hermes_sim.batching.preemption import find_victim, preempt
from hermes_sim.batching.speculation import num_nodes, waits_for_drafts
from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import SCHEDULED
from hermes_sim.state.blocks import drop_out_of_window, grow, num_missing_blocks, seal

# Which running sequences a pass is about.
ALL = 0
DECODES = 1
PROMPTS = 2


@compiled
def give_tokens(state: Any, e: int, slot: int, num_tokens: int, num_drafts: int) -> None:
    """Blocks are free: the sequence gets them and its tokens; progress counts from here on (rule 12)."""
    block_tokens = state.block_tokens[e]
    row = np.int64(state.slot_row[e, slot])
    computed = np.int64(state.slot_computed[e, slot]) + num_tokens
    grow(state, e, slot, (computed + block_tokens - 1) // block_tokens)
    state.slot_computed[e, slot] = computed
    state.slot_scheduled[e, slot] = num_tokens
    state.slot_drafted[e, slot] = num_drafts
    if state.seal_at_schedule[e] != 0:
        seal(state, e, slot, min(computed, np.int64(state.row_prompt[row]) + state.row_generated[row]))
    note(state, e, SCHEDULED, row, num_tokens)


@compiled
def num_drafts_of(state: Any, e: int, slot: int, left: int) -> int:
    """Draft tokens to be verified with the next decode of a sequence."""
    if state.draft_tokens[e] == 0 or (0 < state.draft_max_seqs[e] < state.num_running[e]):
        return np.int64(0)
    if state.draft_devices[e] > 0:
        return max(min(np.int64(state.slot_ready_drafts[e, slot]), left - 1), np.int64(0))
    return max(min(num_nodes(state, e, np.int64(state.slot_drafts[e, slot])), left - 1), np.int64(0))


@compiled
def decode_in_block(state: Any, e: int, slot: int, block_tokens: int) -> bool:
    """Most decodes: one token that the last block has room for. False: it needs a block."""
    computed = np.int64(state.slot_computed[e, slot]) + 1
    if computed > state.slot_blocks[e, slot] * block_tokens:
        return False
    state.slot_computed[e, slot] = computed
    state.slot_scheduled[e, slot] = 1
    if state.seal_at_schedule[e] != 0:
        seal(state, e, slot, computed)
    return True


@compiled
def schedule_running(state: Any, e: int, left: int, which: int, time_s: float) -> Any:
    """One pass over the running list. Returns (budget left, whether it preempted anything, whether it was cut short).

    `which`: all, decodes only, unfinished prompts only. Sequences that have tokens of this step are passed over.
    """
    block_tokens = state.block_tokens[e]
    threshold = state.prefill_threshold[e]
    plain = state.draft_tokens[e] == 0 and state.full_layers[e] != 0 and state.record_decisions[0] == 0
    drafts_come = state.draft_devices[e] > 0
    preempted = False
    place = 0
    while place < state.num_running[e]:
        slot = np.int64(state.running[e, place])
        if state.slot_scheduled[e, slot] > 0 or (state.static_batch[e] != 0 and has_ended(state, e, slot)):
            place += 1
            continue
        decoding = is_decoding(state, e, slot)
        if decoding and plain and which != PROMPTS and left > 0 and decode_in_block(state, e, slot, block_tokens):
            left -= 1
            place += 1
            continue
        if (which == DECODES and not decoding) or (which == PROMPTS and decoding):
            place += 1
            continue
        if drafts_come and waits_for_drafts(state, e, slot, time_s):
            place += 1
            continue
        num_tokens = min(tokens_to_do(state, e, slot), left)
        num_drafts = np.int64(0)
        if decoding and num_tokens > 0:
            num_drafts = num_drafts_of(state, e, slot, left)
        num_tokens += num_drafts
        if 0 < threshold < num_tokens:
            num_drafts = max(num_drafts - (num_tokens - threshold), np.int64(0))
            num_tokens = threshold
        if num_tokens <= 0:
            place += 1
            continue
        drop_out_of_window(state, e, slot)
        num_needed = (state.slot_computed[e, slot] + num_tokens + block_tokens - 1) // block_tokens
        while num_missing_blocks(state, e, slot, num_needed) > state.num_free_blocks[e]:
            victim = find_victim(state, e)
            if victim == place and num_drafts > 0:  # it gives up its drafts before itself
                num_tokens, num_drafts = np.int64(1), np.int64(0)
                num_needed = (state.slot_computed[e, slot] + block_tokens) // block_tokens
                continue
            if victim < 0 or (victim == place and state.slot_in_flight[e, slot] > 0):
                return left, preempted, True  # it waits for what is in flight
            preempted = True
            left += state.slot_scheduled[e, state.running[e, victim]]
            preempt(state, e, victim, time_s)
            if victim == place:
                return left, True, True
            if victim < place:
                place -= 1
        give_tokens(state, e, slot, num_tokens, num_drafts)
        left -= num_tokens
        place += 1
    return left, preempted, False
