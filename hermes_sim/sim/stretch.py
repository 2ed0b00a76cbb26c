"""Runs of decode-only steps: the same floats and the same blocks as step by step, at a cost that does not grow with
the batch.

While the members of a batch do not change, a step adds one token to each. So their sum of contexts, the longest one and
who needs a block when are known from the start; a step is one price, one addition of time, and the blocks of those that
cross into a new one. The members' own counters are brought up to date when the run is over (`settle`). A step that
would end beyond the horizon is left in flight, and the run goes on from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.adapters import adapter_seconds, count_running_adapters
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
from hermes_sim.perf.step_kernel import decode_seconds
from hermes_sim.perf.unit_kernel import unit_cost
from hermes_sim.sim.gaps import count_gap
from hermes_sim.sim.lanes import add_shares
from hermes_sim.sim.pricing import SHORTEST_STEP_S, link_wait_s
from hermes_sim.sim.ranks import STEP_DONE
from hermes_sim.sim.settle import settle
from hermes_sim.sim.steps import set_next_start
from hermes_sim.sim.timeline import pass_points
from hermes_sim.sim.token_steps import close_ranks, end_sequence, grant_reservations, hand_over
from hermes_sim.sim.withdraw import let_go
from hermes_sim.state.arrays import ENERGY, ENGINE_TIME, NUM_SHARES, NUM_UNIT_COLUMNS
from hermes_sim.state.blocks import grow, seal


@compiled
def nobody_joins(state: Any, e: int) -> bool:
    """Nothing can be admitted, and no blocks have been promised to anybody outside."""
    if state.reserve_head[e] >= 0:
        return False
    return state.queue_head[state.first_queue[e]] < 0 or state.num_running[e] >= state.max_num_seqs[e]


@compiled
def can_open(state: Any, e: int) -> bool:
    """Nothing but decodes runs, one token each, at a constant price in blocks."""
    if state.receive_every_steps[e] > 1:  # every step counts towards the next look at new requests
        return False
    if state.pending_swaps[e] > 0:  # the next step pays for KV of a request that is away
        return False
    number = state.num_running[e]
    if number == 0 or number > state.max_num_batched_tokens[e]:
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
def open_run(state: Any, e: int) -> None:
    """Sums over the members, and a counting sort of them by the step in which they need their next block."""
    number = state.num_running[e]
    block_tokens = state.block_tokens[e]
    crossing = state.stretch_crossing[e]
    offsets = state.stretch_offsets[e]
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
    total = np.int64(0)
    for phase in range(block_tokens):
        offsets[phase] = total
        total += crossing[phase]
    for place in range(number):
        phase = room_in_block(state, e, np.int64(state.running[e, place]))
        state.stretch_order[e, offsets[phase]] = place
        offsets[phase] += 1
    state.stretch_number[e] = number
    state.stretch_context_sum[e] = context_sum
    state.stretch_context_max[e] = context_max
    state.stretch_most[e] = most
    state.stretch_charged[e] = 0
    state.stretch_ticks[e] = 0
    state.decodes_left_out[e] = 0
    if state.max_adapters[e] > 0:
        with_adapter = count_running_adapters(state, e)
        state.stretch_adapter_s[e] = adapter_seconds(state, e, with_adapter, state.num_running_adapters[e])


@compiled
def stretch(
    state: Any, e: int, start_s: float, horizon_s: float, rank: int, limit_in_flight_s: float, limit_idle_s: float
) -> bool:
    """Begin decode-only steps from start_s on, and end those that end within the horizon.

    The caller has checked that a step may begin at start_s. False: this step is not for a run, nothing was done.
    """
    if state.stretch_ticks[e] >= 0:
        if not nobody_joins(state, e):
            settle(state, e)
            return False
    elif nobody_joins(state, e) and can_open(state, e):
        open_run(state, e)
    else:
        return False
    number = state.stretch_number[e]
    block_tokens = state.block_tokens[e]
    crossing = state.stretch_crossing[e]
    context_sum = state.stretch_context_sum[e]
    context_max = state.stretch_context_max[e]
    most = state.stretch_most[e]
    kind = state.cost_kind[e]
    attention = state.cost_attention[kind]
    tokens_s = (
        state.cost_decode_linear[kind, number, 0] + state.cost_sampled[kind, number, 0],
        state.cost_decode_linear[kind, number, 1] + state.cost_sampled[kind, number, 1],
        state.cost_decode_linear[kind, number, 2] + state.cost_sampled[kind, number, 2],
        state.cost_decode_linear[kind, number, 3] + state.cost_sampled[kind, number, 3],
    )
    is_limited = state.links_limited[e] != 0
    adapter_s = state.stretch_adapter_s[e]
    num_blocks = state.num_blocks[e]
    num_free = state.num_free_blocks[e]
    sums = read_sums(state, e)
    power_w = (state.power_w[e, 0], state.power_w[e, 1], state.power_w[e, 2], state.power_w[e, 3])
    is_slow = state.is_slow[e] != 0
    slow = (state.slowdown[e, 0], state.slowdown[e, 1], state.slowdown[e, 2], state.slowdown[e, 3])
    seconds = (0.0, 0.0, 0.0, 0.0)
    opened = state.stretch_ticks[e]
    ticks = opened
    counted = opened
    decode_context = np.int64(0)
    units_j = 0.0
    in_flight = False
    time_s = start_s
    duration_s = 0.0
    while ticks < most and time_s < horizon_s and time_s < limit_in_flight_s and time_s <= limit_idle_s:
        num_needed = crossing[ticks % block_tokens]
        if num_needed > num_free:
            break
        step_s = decode_seconds(tokens_s, attention, number, context_sum, context_max)
        if adapter_s > 0.0:
            step_s = (step_s[0], step_s[1] + adapter_s, step_s[2], step_s[3])
        if is_slow:
            step_s = (step_s[0] * slow[0], step_s[1] * slow[1], step_s[2] * slow[2], step_s[3] * slow[3])
        duration_s = step_s[0] + step_s[1] + step_s[2] + step_s[3]
        if duration_s < SHORTEST_STEP_S:
            break
        if is_limited:
            wait_s = link_wait_s(state, e, number, duration_s)
            step_s = (step_s[0], step_s[1], step_s[2] + wait_s, step_s[3])
            duration_s = step_s[0] + step_s[1] + step_s[2] + step_s[3]
        seconds = step_s
        if state.num_units[e] > 0:
            units_j = account_tick(state, e, number, context_sum, context_max)
        end_s = time_s + duration_s
        num_free -= num_needed
        if not (end_s < horizon_s or (end_s == horizon_s and rank > STEP_DONE)) or (
            end_s > limit_in_flight_s or end_s > limit_idle_s
        ):
            in_flight = True
            break
        sums = add_step(sums, seconds, power_w, units_j, end_s - time_s, number, num_blocks - num_free)
        if state.num_units[e] > 0:
            for column in range(NUM_UNIT_COLUMNS):
                state.unit_sums[e, column] += state.lane_units[e, 0, column]
        count_gap(state, end_s, end_s - time_s, number)
        decode_context += context_sum
        ticks += 1
        if end_s >= state.timeline_next_s[e]:
            write_sums(state, e, sums, ticks - counted, number, decode_context)
            describe_step(state, e, seconds, number, context_sum, num_blocks - num_free)
            counted = ticks
            decode_context = np.int64(0)
            pass_points(state, e, 0, time_s, end_s, number)
        context_sum += number
        context_max += 1
        time_s = end_s
    if ticks == opened and not in_flight:
        settle(state, e)
        return False
    write_sums(state, e, sums, ticks - counted, number, decode_context)
    describe_step(state, e, seconds, number, context_sum, num_blocks - num_free)
    hand_out_blocks(state, e, opened, ticks, in_flight)
    state.peak_used_blocks[e] = max(state.peak_used_blocks[e], num_blocks - num_free)
    state.load_tokens[e] -= (ticks - opened) * number
    state.load_output_tokens[e] -= (ticks - opened) * number
    state.stretch_context_sum[e] = context_sum
    state.stretch_context_max[e] = context_max
    state.stretch_ticks[e] = ticks
    if ticks > opened:
        state.last_end_s[e] = time_s
    state.now_s[e] = max(state.now_s[e], time_s)
    state.next_start_s[e] = time_s
    if in_flight:
        state.stretch_in_flight[e] = 1
        state.lane_start_s[e, 0] = time_s
        state.lane_end_s[e, 0] = time_s + duration_s
        state.num_in_flight[e] = 1
        state.next_start_s[e] = np.inf
    elif ticks == most:
        end_run(state, e, time_s)
    return True


@compiled
def account_tick(state: Any, e: int, number: int, context_sum: int, context_max: int) -> float:
    """sim/pricing.account_units of a step of a run: joules of the device groups."""
    kind = state.cost_kind[e]
    units_j = unit_cost(
        state.cost_linear_units[kind],
        state.cost_decode_units[kind],
        state.cost_sampled_units[kind],
        state.cost_attention[kind],
        number,
        number,
        number,
        number,
        context_sum,
        context_max,
        0,
        0,
        0,
        state.lane_units[e, 0],
    )
    state.lane_units_j[e, 0] = units_j
    return units_j


@compiled
def end_tick(state: Any, e: int) -> None:
    """The step that was left in flight ends."""
    number = state.stretch_number[e]
    start_s = state.lane_start_s[e, 0]
    end_s = state.lane_end_s[e, 0]
    context_sum = state.stretch_context_sum[e]
    ticks = state.stretch_ticks[e]
    state.stretch_in_flight[e] = 0
    state.lane_end_s[e, 0] = np.inf
    state.num_in_flight[e] = 0
    add_shares(state, e, 0, end_s - start_s)
    count_gap(state, end_s, end_s - start_s, number)
    state.total_tokens[e] += number
    state.total_sampled[e] += number
    state.total_decode_tokens[e] += number
    state.total_decode_context[e] += context_sum
    if end_s >= state.timeline_next_s[e]:
        pass_points(state, e, 0, start_s, end_s, number)
    state.last_end_s[e] = end_s
    if state.seal_at_schedule[e] == 0:
        seal_tick(state, e, ticks)
    state.load_tokens[e] -= number
    state.load_output_tokens[e] -= number
    state.stretch_context_sum[e] = context_sum + number
    state.stretch_context_max[e] += 1
    state.stretch_ticks[e] = ticks + 1
    state.now_s[e] = max(state.now_s[e], end_s)
    state.next_start_s[e] = state.now_s[e]
    if ticks + 1 == state.stretch_most[e]:
        end_run(state, e, end_s)
    if state.num_leaving[e] > 0:
        settle(state, e)
        let_go(state, e)
        set_next_start(state, e)
    grant_reservations(state, e, end_s)


@compiled
def end_run(state: Any, e: int, time_s: float) -> None:
    """Somebody got the last token: counters catch up, and those that have ended leave."""
    settle(state, e)
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        row = np.int64(state.slot_row[e, slot])
        if state.row_generated[row] >= state.row_output[row]:
            for share in range(NUM_SHARES):
                state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
            while state.row_continues_as[row] >= 0 and state.row_generated[row] >= state.row_output[row]:
                row = hand_over(state, e, slot, row, time_s)
            if state.row_generated[row] >= state.row_output[row]:
                end_sequence(state, e, slot, row, time_s)
    close_ranks(state, e)
    set_next_start(state, e)


@compiled
def read_sums(state: Any, e: int) -> Any:
    """What add_shares adds to, as numbers: seconds by resource, energy and engine time a token, busy, integrals."""
    return (
        state.shares[e, 0],
        state.shares[e, 1],
        state.shares[e, 2],
        state.shares[e, 3],
        state.shares[e, ENERGY],
        state.shares[e, ENGINE_TIME],
        state.busy_s[e],
        state.batch_integral_s[e],
        state.blocks_integral_s[e],
    )


@compiled
def add_step(
    sums: Any, seconds: Any, power_w: Any, units_j: float, duration_s: float, number: int, used_blocks: int
) -> Any:
    """add_shares on numbers: the same additions in the same order."""
    energy_j = 0.0
    energy_j += seconds[0] * power_w[0]
    energy_j += seconds[1] * power_w[1]
    energy_j += seconds[2] * power_w[2]
    energy_j += seconds[3] * power_w[3]
    energy_j += units_j
    return (
        sums[0] + seconds[0],
        sums[1] + seconds[1],
        sums[2] + seconds[2],
        sums[3] + seconds[3],
        sums[4] + energy_j / number,
        sums[5] + duration_s / number,
        sums[6] + duration_s,
        sums[7] + duration_s * number,
        sums[8] + duration_s * used_blocks,
    )


@compiled
def write_sums(state: Any, e: int, sums: Any, num_steps: int, number: int, decode_context: int) -> None:
    """Sums and counts of steps that have ended, back to where everybody reads them."""
    state.shares[e, 0] = sums[0]
    state.shares[e, 1] = sums[1]
    state.shares[e, 2] = sums[2]
    state.shares[e, 3] = sums[3]
    state.shares[e, ENERGY] = sums[4]
    state.shares[e, ENGINE_TIME] = sums[5]
    state.busy_s[e] = sums[6]
    state.batch_integral_s[e] = sums[7]
    state.blocks_integral_s[e] = sums[8]
    state.num_steps[e] += num_steps
    state.total_tokens[e] += num_steps * number
    state.total_sampled[e] += num_steps * number
    state.total_decode_tokens[e] += num_steps * number
    state.total_decode_context[e] += decode_context


@compiled
def describe_step(state: Any, e: int, seconds: Any, number: int, context_sum: int, used_blocks: int) -> None:
    """The last step, as if it had been put in its lane."""
    for resource in range(4):
        state.lane_seconds[e, 0, resource] = seconds[resource]
    state.lane_num_tokens[e, 0] = number
    state.lane_num_scheduled[e, 0] = number
    state.lane_used_blocks[e, 0] = used_blocks
    batch = state.lane_batch[e, 0]
    batch[NUM_TOKENS] = number
    batch[NUM_DECODE_TOKENS] = number
    batch[DECODE_CONTEXT_SUM] = context_sum
    batch[PREFILL_TOKEN_PAIRS] = 0
    batch[PREFILL_CONTEXT_SUM] = 0
    batch[NUM_DRAFTED] = 0


@compiled
def hand_out_blocks(state: Any, e: int, first: int, last: int, one_more: bool) -> None:
    """Blocks of the steps `first` to `last` - 1 of a run, and of step `last` if it has begun: grown and sealed in the
    order in which single steps would, by step, then by place in the batch.

    In a step, a sequence whose last block is full gets a new one; one that fills its block has it sealed, at once
    (then both in the order of the batch) or at the end of the step (then after all new blocks).
    """
    block_tokens = state.block_tokens[e]
    crossing = state.stretch_crossing[e]
    offsets = state.stretch_offsets[e]
    order = state.stretch_order[e]
    at_once = state.seal_at_schedule[e] != 0
    for step in range(first, last + 1 if one_more else last):
        phase = step % block_tokens
        growing, last_growing = offsets[phase] - crossing[phase], offsets[phase]
        if not at_once:
            for index in range(growing, last_growing):
                slot = np.int64(state.running[e, order[index]])
                grow(state, e, slot, (state.slot_computed[e, slot] + step) // block_tokens + 1)
            if step < last:
                seal_tick(state, e, step)
            continue
        phase = (step + 1) % block_tokens
        sealing, last_sealing = offsets[phase] - crossing[phase], offsets[phase]
        while growing < last_growing or sealing < last_sealing:
            if growing < last_growing and (sealing == last_sealing or order[growing] <= order[sealing]):
                slot = np.int64(state.running[e, order[growing]])
                grow(state, e, slot, (state.slot_computed[e, slot] + step) // block_tokens + 1)
                growing += 1
            else:
                slot = np.int64(state.running[e, order[sealing]])
                seal(state, e, slot, np.int64(state.slot_computed[e, slot]) + step + 1)
                sealing += 1


@compiled
def seal_tick(state: Any, e: int, step: int) -> None:
    """Blocks that this step of a run has filled."""
    phase = (step + 1) % state.block_tokens[e]
    last = state.stretch_offsets[e, phase]
    for index in range(last - state.stretch_crossing[e, phase], last):
        slot = np.int64(state.running[e, state.stretch_order[e, index]])
        seal(state, e, slot, np.int64(state.slot_computed[e, slot]) + step + 1)
