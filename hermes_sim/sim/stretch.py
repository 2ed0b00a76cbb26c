"""Many decode-only steps in one go, with the same floats as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import (
    DECODE_CONTEXT_SUM,
    NUM_DECODE_TOKENS,
    NUM_DRAFTED,
    NUM_TOKENS,
    PREFILL_CONTEXT_SUM,
    PREFILL_TOKEN_PAIRS,
    is_decoding,
)
from hermes_sim.core.compiled import compiled
from hermes_sim.perf.step_kernel import step_cost
from hermes_sim.sim.gaps import count_gap
from hermes_sim.sim.lanes import add_shares
from hermes_sim.sim.pricing import SHORTEST_STEP_S, total_s
from hermes_sim.sim.ranks import STEP_DONE
from hermes_sim.sim.steps import set_next_start
from hermes_sim.sim.timeline import pass_points
from hermes_sim.sim.token_steps import close_ranks, end_sequence
from hermes_sim.state.arrays import NUM_SHARES
from hermes_sim.state.blocks import grow, seal
from hermes_sim.state.clients import charge_output


@compiled
def can_stretch(state: Any, e: int) -> bool:
    """Nothing but decodes runs, one token each, at a constant price in blocks, and nothing can be admitted."""
    number = state.num_running[e]
    if number == 0 or number > state.max_num_batched_tokens[e] or state.reserve_head[e] >= 0:
        return False
    if state.queue_head[state.first_queue[e]] >= 0 and number < state.max_num_seqs[e]:
        return False
    if state.share_by_sums[e] == 0 or state.radix[e] != 0 or state.full_layers[e] == 0 or state.python_policy[e] != 0:
        return False
    for place in range(number - 1, -1, -1):  # unfinished prompts stand at the end
        slot = np.int64(state.running[e, place])
        row = state.slot_row[e, slot]
        if not is_decoding(state, e, slot) or not np.isnan(state.row_last_token_s[row]):
            return False
        if state.window_groups[e] > 0 and state.slot_blocks[e, slot] < state.window_blocks[e]:
            return False
        if room_in_block(state, e, slot) >= state.block_tokens[e]:
            return False  # owns its next block already
    return True


@compiled
def room_in_block(state: Any, e: int, slot: int) -> int:
    """Tokens that the blocks of a sequence still have room for."""
    return np.int64(state.slot_blocks[e, slot]) * state.block_tokens[e] - state.slot_computed[e, slot]


@compiled
def stretch(
    state: Any, e: int, start_s: float, horizon_s: float, rank: int, limit_in_flight_s: float, limit_idle_s: float
) -> int:
    """Whole decode-only steps up to the horizon, or to the one in which somebody ends: the same floats as step by step.

    Contexts are summed as integers; blocks are handed out by counting sort on context mod block.
    Returns the number of steps taken.
    """
    if not can_stretch(state, e):
        return 0
    number = state.num_running[e]
    block_tokens = state.block_tokens[e]
    crossing = state.scratch_phase
    crossing[:block_tokens] = 0
    context_sum = np.int64(0)
    context_max = np.int64(0)
    most = np.int64(1) << 62
    for place in range(number):
        slot = np.int64(state.running[e, place])
        row = state.slot_row[e, slot]
        computed = np.int64(state.slot_computed[e, slot])
        context_sum += computed + 1
        context_max = max(context_max, computed + 1)
        most = min(most, np.int64(state.row_output[row]) - state.row_generated[row])
        crossing[room_in_block(state, e, slot)] += 1
    kind = state.cost_kind[e]
    linear = state.cost_linear[kind]
    decode_linear = state.cost_decode_linear[kind]
    sampled = state.cost_sampled[kind]
    attention = state.cost_attention[kind]
    seconds = state.scratch_seconds
    num_free = state.num_free_blocks[e]
    lane_seconds = state.lane_seconds[e, 0]
    state.lane_num_tokens[e, 0] = number
    state.lane_num_scheduled[e, 0] = number
    taken = np.int64(0)
    counted = np.int64(0)
    time_s = start_s
    while taken < most and time_s < horizon_s and time_s < limit_in_flight_s and time_s <= limit_idle_s:
        num_needed = crossing[taken % block_tokens]
        if num_needed > num_free:
            break
        step_cost(
            linear,
            decode_linear,
            sampled,
            attention,
            number,
            number,
            number,
            number,
            context_sum,
            context_max,
            0,
            0,
            0,
            seconds,
        )
        duration_s = total_s(seconds)
        if duration_s < SHORTEST_STEP_S:
            break
        end_s = time_s + duration_s
        if not (end_s < horizon_s or (end_s == horizon_s and rank > STEP_DONE)):
            break
        if end_s > limit_in_flight_s or end_s > limit_idle_s:
            break
        num_free -= num_needed
        state.lane_used_blocks[e, 0] = state.num_blocks[e] - num_free
        for resource in range(4):
            lane_seconds[resource] = seconds[resource]
        add_shares(state, e, 0, end_s - time_s)
        count_gap(state, end_s, end_s - time_s, number)
        state.total_decode_context[e] += context_sum
        taken += 1
        if end_s >= state.timeline_next_s[e]:
            count_tokens(state, e, (taken - counted) * number)
            counted = taken
            describe_step(state, e, number, context_sum)
            pass_points(state, e, 0, max(time_s, state.last_end_s[e]), end_s, number)
        state.last_end_s[e] = end_s
        context_sum += number
        context_max += 1
        time_s = end_s
    if taken == 0:
        return 0
    count_tokens(state, e, (taken - counted) * number)
    grow_stretch(state, e, taken)
    state.peak_used_blocks[e] = max(state.peak_used_blocks[e], state.lane_used_blocks[e, 0])
    state.load_tokens[e] -= taken * number
    state.load_output_tokens[e] -= taken * number
    state.decodes_left_out[e] = 0
    state.now_s[e] = time_s
    state.next_start_s[e] = time_s
    for place in range(number):
        slot = np.int64(state.running[e, place])
        row = state.slot_row[e, slot]
        state.slot_computed[e, slot] += taken
        state.slot_done[e, slot] += taken
        state.row_generated[row] += taken
        charge_output(state, e, row, taken)
    if taken == most:
        end_sequences(state, e, time_s)
    return taken


@compiled
def end_sequences(state: Any, e: int, time_s: float) -> None:
    """Those that got their last token in the last step leave."""
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        row = np.int64(state.slot_row[e, slot])
        if state.row_generated[row] >= state.row_output[row]:
            for share in range(NUM_SHARES):
                state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
            end_sequence(state, e, slot, row, time_s)
    close_ranks(state, e)
    set_next_start(state, e)


@compiled
def count_tokens(state: Any, e: int, num_tokens: int) -> None:
    """Add decoded tokens to the totals."""
    state.total_tokens[e] += num_tokens
    state.total_sampled[e] += num_tokens
    state.total_decode_tokens[e] += num_tokens


@compiled
def describe_step(state: Any, e: int, number: int, context_sum: int) -> None:
    """What the last step added, for the timeline."""
    batch = state.lane_batch[e, 0]
    batch[NUM_TOKENS] = number
    batch[NUM_DECODE_TOKENS] = number
    batch[DECODE_CONTEXT_SUM] = context_sum
    batch[PREFILL_TOKEN_PAIRS] = 0
    batch[PREFILL_CONTEXT_SUM] = 0
    batch[NUM_DRAFTED] = 0


@compiled
def grow_stretch(state: Any, e: int, num_steps: int) -> None:
    """Hand out and seal blocks in the order in which single steps would: by step, then by place in the batch.

    In a step, a sequence whose last block is full gets a new one; one that fills its block has it sealed, at once
    (then both in the order of the batch) or at the end of the step (then after all new blocks).
    """
    number = state.num_running[e]
    block_tokens = state.block_tokens[e]
    crossing = state.scratch_phase
    offsets = state.scratch_offsets
    order = state.scratch_order
    total = np.int64(0)
    for phase in range(block_tokens):
        offsets[phase] = total
        total += crossing[phase]
    for place in range(number):
        phase = room_in_block(state, e, np.int64(state.running[e, place]))
        order[offsets[phase]] = place
        offsets[phase] += 1
    at_once = state.seal_at_schedule[e] != 0
    for step in range(num_steps):
        phase = step % block_tokens
        growing, last_growing = offsets[phase] - crossing[phase], offsets[phase]
        phase = (step + 1) % block_tokens
        sealing, last_sealing = offsets[phase] - crossing[phase], offsets[phase]
        while growing < last_growing or sealing < last_sealing:
            if growing < last_growing and (
                not at_once or sealing == last_sealing or order[growing] <= order[sealing]
            ):
                slot = np.int64(state.running[e, order[growing]])
                grow(state, e, slot, (state.slot_computed[e, slot] + step) // block_tokens + 1)
                growing += 1
            else:
                slot = np.int64(state.running[e, order[sealing]])
                seal(state, e, slot, np.int64(state.slot_computed[e, slot]) + step + 1)
                sealing += 1
