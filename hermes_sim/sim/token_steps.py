"""The end of a language model's step: progress, tokens, completions, sealed blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.adapters import leave_adapter
from hermes_sim.batching.batch import (
    DECODE,
    DECODE_CONTEXT_SUM,
    NUM_DECODE_TOKENS,
    NUM_DRAFTED,
    NUM_LAYER_GROUPS,
    NUM_PREFILL,
    NUM_TOKENS,
    PART_OF_PROMPT,
    PREFILL_CONTEXT_SUM,
    PREFILL_TOKEN_PAIRS,
    has_ended,
    is_decoding,
    note,
)
from hermes_sim.batching.speculation import count_accepted, num_positions, skips_bonus
from hermes_sim.batching.waiting import missing_with_kv
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.draft_rounds import begin_rounds, note_prompt, note_round
from hermes_sim.sim.gaps import count_gap
from hermes_sim.sim.lanes import step_energy_j
from hermes_sim.sim.outbox import emit
from hermes_sim.sim.samples import close_sample, fork_samples
from hermes_sim.sim.while_waiting import set_aside
from hermes_sim.state.arrays import (
    ENDED,
    ENERGY,
    ENGINE_TIME,
    FINISHED_ROW,
    GRANTED,
    HAS_KV,
    HOLDS_KV,
    NUM_SHARES,
    WAIT_LRU,
)
from hermes_sim.state.blocks import count_hits, grow, num_pool_blocks, release, seal, take_hits, take_slot
from hermes_sim.state.clients import charge_output, client_leaves
from hermes_sim.state.queues import comes_before


@compiled
def end_tokens(state: Any, e: int, lane: int, time_s: float, duration_s: float) -> int:
    """Every scheduled sequence progresses; those with all their tokens leave. Returns the tokens generated."""
    by_sums = state.share_by_sums[e] != 0
    number = max(state.lane_num_tokens[e, lane], 1)
    energy_j = step_energy_j(state, e, lane)
    wave_goes_on = end_of_layer_group(state, e, lane)
    if by_sums and state.lane_num_scheduled[e, lane] < state.num_running[e]:
        skip_shares(state, e, lane, energy_j / number, duration_s / number)
    seals = state.seal_at_schedule[e] == 0
    num_sampled = np.int64(0)
    num_regular_gaps = 0
    num_gone = 0
    num_plain = np.int64(0)
    for place in range(state.lane_num_scheduled[e, lane]):
        slot = np.int64(state.lane_slots[e, lane, place])
        num_tokens = np.int64(state.lane_slot_tokens[e, lane, place])
        if slot < 0:  # preempted while in flight: computed for it, and thrown away
            state.row_shares[-2 - slot, ENERGY] += energy_j * num_tokens / number
            state.row_shares[-2 - slot, ENGINE_TIME] += duration_s * num_tokens / number
            continue
        kind = state.lane_slot_kind[e, lane, place]
        if by_sums and kind == DECODE and goes_on_decoding(state, e, slot, time_s, seals):
            num_plain += 1
            continue
        state.slot_in_flight[e, slot] -= 1
        row = np.int64(state.slot_row[e, slot])
        summed = by_sums and kind == DECODE
        if not summed:
            part = share_of_its_own(state, e, lane, slot, time_s)
            for resource in range(4):
                state.row_shares[row, resource] += state.lane_seconds[e, lane, resource] * part
            state.row_shares[row, ENERGY] += energy_j * num_tokens / number
            state.row_shares[row, ENGINE_TIME] += duration_s * num_tokens / number
            for share in range(NUM_SHARES):
                state.slot_base[e, slot, share] = state.shares[e, share]
        if wave_goes_on and kind != DECODE:
            continue
        gained = progress(state, e, slot, row, kind, num_tokens)
        finished = False
        if kind != PART_OF_PROMPT:
            if gained > 0:
                num_sampled += gained
                if state.row_generated[row] > gained:
                    if np.isnan(state.row_last_token_s[row]):
                        num_regular_gaps += 1
                    else:
                        count_gap(state, time_s, time_s - state.row_last_token_s[row], 1)
                        state.row_last_token_s[row] = np.nan
                    if gained > 1:
                        count_gap(state, time_s, 0.0, gained - 1)
                if state.draft_devices[e] > 0 and kind != DECODE:
                    note_prompt(state, e, slot, row)
            finished = state.row_generated[row] >= state.row_output[row]
            if finished and summed:
                for share in range(NUM_SHARES):
                    state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
            while finished and state.row_continues_as[row] >= 0:
                row = hand_over(state, e, slot, row, time_s)
                finished = state.row_generated[row] >= state.row_output[row]
                if state.row_num_samples[row] > 1:
                    fork_samples(state, e, slot, row, time_s, True)
            if not by_sums and not finished:
                state.row_last_token_s[row] = time_s
        if finished:
            end_sequence(state, e, slot, row, time_s)
            num_gone += 1
    num_sampled += num_plain
    num_regular_gaps += num_plain
    state.load_tokens[e] -= num_plain
    state.load_output_tokens[e] -= num_plain
    if num_regular_gaps > 0:
        count_gap(state, time_s, duration_s, num_regular_gaps)
    if state.static_batch[e] != 0:
        num_gone = end_static_batch(state, e, time_s)
    if state.draft_devices[e] > 0:
        begin_rounds(state, e, lane, time_s, duration_s)
    if num_gone > 0:
        close_ranks(state, e)
    count_step(state, e, lane, num_sampled)
    return num_sampled


@compiled
def goes_on_decoding(state: Any, e: int, slot: int, time_s: float, seals: bool) -> bool:
    """Most decodes: one more token, not the last, after a gap of one step. The caller counts loads and gaps."""
    row = np.int64(state.slot_row[e, slot])
    generated = state.row_generated[row] + 1
    if generated >= state.row_output[row] or not np.isnan(state.row_last_token_s[row]):
        return False
    state.row_generated[row] = generated
    state.slot_in_flight[e, slot] -= 1
    state.slot_done[e, slot] += 1
    charge_output(state, e, row, 1)
    if seals:
        seal(state, e, slot, np.int64(state.slot_done[e, slot]))
    return True


@compiled
def share_of_its_own(state: Any, e: int, lane: int, slot: int, time_s: float) -> float:
    """Part of a step in which a sequence was in no other: chunks of one prompt overlap in a pipeline."""
    last_s = state.slot_last_end_s[e, slot]
    start_s = state.lane_start_s[e, lane]
    state.slot_last_end_s[e, slot] = time_s
    if last_s <= start_s or state.async_scheduling[e] != 0:
        return 1.0
    return (time_s - last_s) / (time_s - start_s)


@compiled
def end_of_layer_group(state: Any, e: int, lane: int) -> bool:
    """Layered prefill: whether the prompts of the wave have more groups of layers to go through."""
    if state.lane_batch[e, lane, NUM_PREFILL] == 0 or state.by_layers[e] == 0:
        return False
    state.wave_done[e] += 1
    if state.wave_done[e] < state.lane_batch[e, lane, NUM_LAYER_GROUPS]:
        return True
    state.wave_groups[e] = 0
    return False


@compiled
def skip_shares(state: Any, e: int, lane: int, energy_j: float, engine_s: float) -> None:
    """Decodes that had no part in the step: their gap grows, their part of the running sums must not."""
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        if state.slot_in_flight[e, slot] > 0 or not is_decoding(state, e, slot):
            continue
        row = np.int64(state.slot_row[e, slot])
        if np.isnan(state.row_last_token_s[row]):
            state.row_last_token_s[row] = state.lane_start_s[e, lane]
        for resource in range(4):
            state.slot_base[e, slot, resource] += state.lane_seconds[e, lane, resource]
        state.slot_base[e, slot, ENERGY] += energy_j
        state.slot_base[e, slot, ENGINE_TIME] += engine_s


@compiled
def progress(state: Any, e: int, slot: int, row: int, kind: int, num_tokens: int) -> int:
    """Count what the step computed of one sequence; drafts that were wrong are taken back. Returns tokens generated."""
    gained = np.int64(0)
    if kind == DECODE:
        gained = np.int64(1)
        if num_tokens > 1:
            gained = count_accepted(state, e, slot, row, num_tokens - 1) + 1
            if skips_bonus(state, e, slot):
                gained = min(gained, num_positions(state, e, num_tokens - 1))
        if state.draft_devices[e] > 0:
            note_round(state, e, slot, row)
        state.slot_computed[e, slot] -= num_tokens - gained
        state.slot_done[e, slot] += gained
        state.load_tokens[e] -= gained
    else:
        state.slot_done[e, slot] += num_tokens
        state.load_tokens[e] -= num_tokens
        if kind != PART_OF_PROMPT and state.row_output[row] > 0:
            gained = np.int64(1)
    if kind != PART_OF_PROMPT and state.async_scheduling[e] != 0:
        state.slot_pending[e, slot] -= 1
    if state.seal_at_schedule[e] == 0:
        seal(state, e, slot, np.int64(state.slot_done[e, slot]))
    if gained > 0:
        state.row_generated[row] += gained
        state.load_output_tokens[e] -= gained
        charge_output(state, e, row, gained)
    return gained


@compiled
def end_sequence(state: Any, e: int, slot: int, row: int, time_s: float) -> None:
    """A sequence has all its tokens: it leaves, or keeps its place until its static batch ends."""
    state.load_requests[e] -= 1
    client_leaves(state, e, row)
    note(state, e, FINISHED_ROW, row, np.int64(state.row_generated[row]))
    if state.static_batch[e] != 0:
        state.row_flags[row] |= np.uint8(ENDED)
    else:
        leave(state, e, slot, row, time_s)


@compiled
def leave(state: Any, e: int, slot: int, row: int, time_s: float) -> None:
    """A sequence has all its tokens: its blocks are free, or held until they have been sent elsewhere."""
    state.slot_gone[e, slot] = 1
    if state.max_adapters[e] > 0:
        leave_adapter(state, e, row, time_s)
    if state.while_waiting[e] != WAIT_LRU and state.row_returns_as[row] >= 0:
        set_aside(state, e, slot, row)
    elif state.row_flags[row] & HOLDS_KV == 0:
        release(state, e, slot)
    close_sample(state, e, row, time_s)


@compiled
def end_static_batch(state: Any, e: int, time_s: float) -> int:
    """When the last sequence of a static batch has ended, all leave. Returns their number."""
    number = state.num_running[e]
    for place in range(number):
        if not has_ended(state, e, np.int64(state.running[e, place])):
            return 0
    for place in range(number):
        slot = np.int64(state.running[e, place])
        leave(state, e, slot, np.int64(state.slot_row[e, slot]), time_s)
    return number


@compiled
def close_ranks(state: Any, e: int) -> None:
    """Those that have left make room in the running list."""
    num_kept = 0
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        if state.slot_gone[e, slot] != 0:
            state.slot_gone[e, slot] = 0
            continue
        state.running[e, num_kept] = slot
        num_kept += 1
    state.num_running[e] = num_kept


@compiled
def count_step(state: Any, e: int, lane: int, num_sampled: int) -> None:
    """Add the step's counts to the engine's totals."""
    batch = state.lane_batch[e, lane]
    state.total_tokens[e] += batch[NUM_TOKENS]
    state.total_sampled[e] += num_sampled
    state.total_decode_tokens[e] += batch[NUM_DECODE_TOKENS]
    state.total_prefill_tokens[e] += batch[NUM_TOKENS] - batch[NUM_DECODE_TOKENS]
    state.total_decode_context[e] += batch[DECODE_CONTEXT_SUM]
    state.total_prefill_pairs[e] += batch[PREFILL_TOKEN_PAIRS]
    state.total_prefill_context[e] += batch[PREFILL_CONTEXT_SUM]
    state.total_drafted[e] += batch[NUM_DRAFTED]


@compiled
def hand_over(state: Any, e: int, slot: int, row: int, time_s: float) -> int:
    """A visit has ended and its sequence goes on in the same engine: it now stands for the visit after it."""
    after = np.int64(state.row_continues_as[row])
    state.row_prompt[after] = state.row_prompt[row]
    state.row_generated[after] = state.row_generated[row]
    state.row_priority[after] = state.row_priority[row]
    state.row_key[after] = state.row_key[row]
    state.row_client[after] = state.row_client[row]
    state.row_order[after] = state.row_order[row]
    state.row_engine[after] = e
    state.row_arrival_s[after] = time_s
    state.row_start_s[after] = time_s
    state.row_slot[after] = slot
    state.row_slot[row] = -1
    state.slot_row[e, slot] = after
    for share in range(NUM_SHARES):
        state.slot_base[e, slot, share] = state.shares[e, share]
    close_sample(state, e, row, time_s)
    return after


@compiled
def reserve_now(state: Any, e: int, row: int) -> bool:
    """Blocks for a prompt whose KV comes from elsewhere (rule 18), if they are free; takes them.

    Those who are here already go first: one block for each running sequence is kept back, and nobody comes in while
    the head of the line waits for blocks that it had, or lacks one to go on.
    """
    block_tokens = state.block_tokens[e]
    head = np.int64(state.queue_head[state.first_queue[e]])
    if head >= 0 and state.row_flags[head] & HAS_KV != 0:
        if missing_with_kv(state, e, head) > 0:
            return False
    elif head >= 0 and state.row_preemptions[head] > 0:
        return False
    if state.row_loaded[row] > 0:
        return reserve_loaded(state, e, row)
    num_computed = state.row_prompt[row] + state.row_generated[row] - 1
    num_needed = (num_computed + 1 + block_tokens - 1) // block_tokens
    num_kept_back = state.num_running[e]
    if num_pool_blocks(state, e, num_needed) + num_kept_back > state.num_free_blocks[e] or state.num_free_slots[e] == 0:
        return False
    slot = take_slot(state, e, row)
    grow(state, e, slot, num_needed)
    state.slot_computed[e, slot] = num_computed
    state.slot_done[e, slot] = num_computed
    return True


@compiled
def reserve_loaded(state: Any, e: int, row: int) -> bool:
    """Blocks for the first tokens of a prompt, whose KV a store sends, if they are free; takes them.

    What the engine's prefix cache holds by now is shared and need not be sent. Whoever came before and stands in line
    keeps room for its prompt, and slots are left for a full batch.
    """
    block_tokens = state.block_tokens[e]
    num_hits, num_unowned = count_hits(state, e, row, np.int64(state.row_prompt[row]))
    num_computed = max(np.int64(state.row_loaded[row]), num_hits * block_tokens)
    num_needed = (num_computed + block_tokens - 1) // block_tokens
    num_wanted = num_pool_blocks(state, e, num_needed) - num_hits + num_unowned + state.num_running[e]
    other = np.int64(state.queue_head[state.first_queue[e]])
    while other >= 0 and num_wanted <= state.num_free_blocks[e]:
        if not comes_before(state, state.queue_order[e], other, row):
            break
        if state.row_flags[other] & HAS_KV == 0:
            num_tokens = np.int64(state.row_prompt[other]) + state.row_generated[other]
            num_wanted += num_pool_blocks(state, e, (num_tokens + block_tokens - 1) // block_tokens)
        other = np.int64(state.row_next[other])
    if num_wanted > state.num_free_blocks[e]:
        return False
    if state.num_free_slots[e] <= state.max_num_seqs[e] - state.num_running[e]:
        return False
    slot = take_slot(state, e, row)
    take_hits(state, e, slot, num_hits)
    grow(state, e, slot, num_needed)
    state.slot_computed[e, slot] = num_computed
    state.slot_done[e, slot] = num_computed
    state.row_loaded[row] = num_computed
    state.row_cached[row] = num_hits * block_tokens
    state.load_tokens[e] -= num_computed
    state.total_cached_tokens[e] += num_hits * block_tokens
    state.total_hit_blocks[e] += num_hits
    state.total_looked_up_blocks[e] += (state.row_prompt[row] - 1) // block_tokens
    return True


@compiled
def grant_reservations(state: Any, e: int, time_s: float) -> None:
    """Serve those who wait for blocks, in order, as far as blocks have come free."""
    while state.reserve_head[e] >= 0 and reserve_now(state, e, state.reserve_head[e]):
        row = np.int64(state.reserve_head[e])
        state.reserve_head[e] = state.row_next[row]
        if state.reserve_head[e] < 0:
            state.reserve_tail[e] = -1
        state.row_next[row] = -1
        state.num_watched[e] -= 1
        emit(state, time_s, GRANTED, row)
