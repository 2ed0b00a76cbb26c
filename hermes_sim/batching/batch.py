"""The batch of one step: who is in it, with how many tokens, and the sums of them that its cost depends on."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import ENDED
from hermes_sim.state.sequences import final_output

# Places in the description of a batch (state.scratch_batch, state.lane_batch).
NUM_TOKENS = 0
NUM_SAMPLED = 1  # tokens that get logits: one per sequence that is up to date, and its drafts
NUM_DECODE = 2
NUM_DECODE_TOKENS = 3  # drafts included
DECODE_CONTEXT_SUM = 4
DECODE_CONTEXT_MAX = 5
NUM_PREFILL = 6
PREFILL_TOKEN_PAIRS = 7
PREFILL_CONTEXT_SUM = 8
PREFILL_HISTORY_SUM = 9
PREFILL_LONGEST = 10
NUM_DRAFTED = 11
SWAPPED_BLOCKS = 12
COPIED_BLOCKS = 13
NUM_LAYER_GROUPS = 14  # 1: prompts run through all layers in this step
NUM_SAMPLED_PROMPTS = 15
ADAPTER_TOKENS = 16  # of sequences with a low-rank adapter
NUM_ADAPTERS = 17  # different ones among them
NUM_ADAPTER_LOADS = 18

# Kinds of an entry of a lane.
PART_OF_PROMPT = 0
END_OF_PROMPT = 1
DECODE = 2


@compiled
def tokens_to_do(state: Any, e: int, slot: int) -> int:
    """Prompt + generated - computed (rule 1: no phases); `pending` are tokens that steps in flight will bring."""
    row = state.slot_row[e, slot]
    generated = np.int64(state.row_generated[row]) + state.slot_pending[e, slot]
    if state.slot_pending[e, slot] > 0 and generated >= final_output(state, row):
        return np.int64(0)
    return state.row_prompt[row] + generated - state.slot_computed[e, slot]


@compiled
def is_decoding(state: Any, e: int, slot: int) -> bool:
    """Up to date but for its last token."""
    generated = state.row_generated[state.slot_row[e, slot]] + state.slot_pending[e, slot]
    return generated >= 1 and tokens_to_do(state, e, slot) == 1


@compiled
def has_ended(state: Any, e: int, slot: int) -> bool:
    """It only keeps its place in a static batch."""
    return state.row_flags[state.slot_row[e, slot]] & ENDED != 0


@compiled
def note(state: Any, e: int, kind: int, row: int, value: int) -> None:
    """Record a decision, if somebody reads them."""
    if state.record_decisions[0] == 0:
        return
    place = state.decision_count[0]
    state.decision_engine[place] = e
    state.decision_kind[place] = kind
    state.decision_row[place] = row
    state.decision_value[place] = value
    state.decision_count[0] = place + 1


@compiled
def count_adapters_of_step(state: Any, e: int, batch: Any) -> None:
    """Tokens that go through low-rank adapters, how many different ones, and loads that the step waits for."""
    state.adapter_count[e] += 1
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        num_tokens = np.int64(state.slot_scheduled[e, slot])
        adapter = np.int64(state.row_adapter[state.slot_row[e, slot]]) - 1
        if num_tokens == 0 or adapter < 0:
            continue
        batch[ADAPTER_TOKENS] += num_tokens
        if state.adapter_mark[e, adapter] != state.adapter_count[e]:
            state.adapter_mark[e, adapter] = state.adapter_count[e]
            batch[NUM_ADAPTERS] += 1
    batch[NUM_ADAPTER_LOADS] = state.pending_adapter_loads[e]
    state.pending_adapter_loads[e] = 0


@compiled
def put_in_flight(state: Any, e: int, lane: int) -> None:
    """Move what was decided into a lane, in running order, and describe it by its sums (state.scratch_batch)."""
    batch = state.scratch_batch
    batch[:] = 0
    batch[NUM_LAYER_GROUPS] = 1
    is_wave = state.by_layers[e] != 0 and state.wave_groups[e] > 0
    number = 0
    if state.max_adapters[e] > 0:
        count_adapters_of_step(state, e, batch)
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        num_tokens = np.int64(state.slot_scheduled[e, slot])
        if num_tokens == 0:
            continue
        num_drafts = np.int64(state.slot_drafted[e, slot])
        row = np.int64(state.slot_row[e, slot])
        context = np.int64(state.slot_computed[e, slot])
        known = np.int64(state.row_prompt[row]) + state.row_generated[row] + state.slot_pending[e, slot]
        generated = state.row_generated[row] + state.slot_pending[e, slot]
        kind = PART_OF_PROMPT
        if context - num_drafts == known:
            kind = DECODE if generated >= 1 and num_tokens == 1 + num_drafts else END_OF_PROMPT
        batch[NUM_TOKENS] += num_tokens
        if kind == DECODE:
            batch[NUM_DECODE] += 1
            batch[NUM_DECODE_TOKENS] += num_tokens
            batch[NUM_SAMPLED] += num_tokens
            batch[NUM_DRAFTED] += num_drafts
            batch[DECODE_CONTEXT_SUM] += context
            batch[DECODE_CONTEXT_MAX] = max(batch[DECODE_CONTEXT_MAX], context)
        else:
            history = context - num_tokens
            batch[NUM_PREFILL] += 1
            batch[PREFILL_TOKEN_PAIRS] += num_tokens * history + num_tokens * (num_tokens + 1) // 2
            batch[PREFILL_CONTEXT_SUM] += context
            batch[PREFILL_HISTORY_SUM] += history
            batch[PREFILL_LONGEST] = max(batch[PREFILL_LONGEST], num_tokens)
            if kind == END_OF_PROMPT and not is_wave:
                batch[NUM_SAMPLED] += 1
                batch[NUM_SAMPLED_PROMPTS] += 1
        state.lane_slots[e, lane, number] = slot
        state.lane_slot_tokens[e, lane, number] = num_tokens
        state.lane_slot_kind[e, lane, number] = kind
        number += 1
        state.slot_scheduled[e, slot] = 0
        state.slot_in_flight[e, slot] += 1
        if state.async_scheduling[e] != 0 and kind != PART_OF_PROMPT:
            state.slot_pending[e, slot] += 1
    if is_wave:
        batch[NUM_LAYER_GROUPS] = state.wave_groups[e]
        if state.wave_done[e] == state.wave_groups[e] - 1:
            batch[NUM_SAMPLED] += batch[NUM_PREFILL]
            batch[NUM_SAMPLED_PROMPTS] = batch[NUM_PREFILL]
    batch[SWAPPED_BLOCKS] = state.pending_swaps[e]
    batch[COPIED_BLOCKS] = state.pending_copies[e]
    state.pending_swaps[e] = 0
    state.pending_copies[e] = 0
    state.lane_num_scheduled[e, lane] = number
    state.lane_num_tokens[e, lane] = batch[NUM_TOKENS]
