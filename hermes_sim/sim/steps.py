"""One step of an engine, from its begin to its end: `begin_step` and `end_step` are the whole meaning of a run.

sim/stretch.py repeats them for a batch that only decodes; sim/advance.py decides how far an engine may go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.schedule import (
    DECODE_CONTEXT_MAX,
    DECODE_CONTEXT_SUM,
    NUM_DECODE,
    NUM_PREFILL,
    NUM_SAMPLED,
    NUM_TOKENS,
    PREFILL_CONTEXT_SUM,
    PREFILL_TOKEN_PAIRS,
    is_decoding,
    schedule,
    tokens_to_do,
)
from hermes_sim.core.compiled import compiled
from hermes_sim.perf.step_cost import step_cost
from hermes_sim.sim.contention import retime
from hermes_sim.state.arrays import (
    DONE,
    ENERGY,
    ENGINE_TIME,
    GRANTED,
    HOLDS_KV,
    ITL_BINS_PER_OCTAVE_LOG2,
    ITL_LOWEST_EXPONENT,
    ITL_NUM_BINS,
    JOBS,
    NUM_SHARES,
    TOKENS,
    WATCHED,
)
from hermes_sim.state.blocks import grow, release, seal, take_slot
from hermes_sim.state.queues import pop

SHORTEST_STEP_S = 1e-9
"""No step is shorter: an output is always later than the start of its step, so nothing waits in a circle."""

MEMORY = 1
"""Column of memory in seconds and demand vectors."""

MANTISSA_SHIFT = 52 - ITL_BINS_PER_OCTAVE_LOG2

FIRST_BIN = (1023 + ITL_LOWEST_EXPONENT) << ITL_BINS_PER_OCTAVE_LOG2


@compiled
def count_gap(state: Any, end_s: float, gap_s: float, number: int) -> None:
    """Enter gaps between tokens into the histogram: bins are equal parts of each octave, found in the float's bits."""
    if state.itl_window_s[0] <= end_s <= state.itl_window_s[1]:
        place = (np.float64(gap_s).view(np.int64) >> MANTISSA_SHIFT) - FIRST_BIN
        state.itl_counts[min(max(place, 0), ITL_NUM_BINS - 1)] += number


@compiled
def emit(state: Any, time_s: float, kind: int, row: int) -> None:
    """An event for the outside."""
    place = state.outbox_count[0]
    state.outbox_time_s[place] = time_s
    state.outbox_kind[place] = kind
    state.outbox_row[place] = row
    state.outbox_count[0] = place + 1


@compiled
def close_visit(state: Any, e: int, row: int, time_s: float) -> None:
    """The visit has ended; whoever watches it is told."""
    state.row_finish_s[row] = time_s
    if state.row_flags[row] & WATCHED:
        state.num_watched[e] -= 1
        emit(state, time_s, DONE, row)


@compiled
def free_lane(state: Any, e: int) -> int:
    """A lane with no step in flight, or -1."""
    for lane in range(state.num_lanes[e]):
        if np.isinf(state.lane_end_s[e, lane]):
            return lane
    return -1


@compiled
def pipeline_free_s(state: Any, e: int) -> float:
    """When the first pipeline stage is free again."""
    free_s = state.now_s[e]
    if state.num_lanes[e] == 1:
        return free_s
    for lane in range(state.num_lanes[e]):
        if not np.isinf(state.lane_end_s[e, lane]):
            duration_s = state.lane_end_s[e, lane] - state.lane_start_s[e, lane] - state.lane_held_s[e, lane]
            free_s = max(free_s, state.lane_start_s[e, lane] + duration_s * state.stage_interval_frac[e])
    return free_s


@compiled
def hold_back(state: Any, e: int, lane: int) -> None:
    """Steps leave a pipeline in the order in which they entered it: the stages are busy with those before.

    Exact for stages of equal length (proportionate flow shop; Pinedo, Scheduling, section 6.1).
    """
    alone_s = state.lane_end_s[e, lane]
    end_s = alone_s
    last_stage_s = (alone_s - state.lane_start_s[e, lane]) * state.stage_interval_frac[e]
    for other in range(state.num_lanes[e]):
        if other != lane and not np.isinf(state.lane_end_s[e, other]):
            end_s = max(end_s, state.lane_end_s[e, other] + last_stage_s)
    state.lane_end_s[e, lane] = end_s
    state.lane_held_s[e, lane] = end_s - alone_s


@compiled
def set_next_start(state: Any, e: int) -> None:
    """When the engine could begin a step, given what waits now; infinity if nothing does or no lane is free."""
    state.next_start_s[e] = np.inf
    if state.num_in_flight[e] >= state.num_lanes[e]:
        return
    if state.engine_kind[e] == TOKENS:
        if state.num_running[e] > 0 or state.queue_head[state.first_queue[e]] >= 0:
            state.next_start_s[e] = pipeline_free_s(state, e)
        return
    ready_s = np.inf
    for queue in range(state.first_queue[e], state.first_queue[e] + state.num_queues[e]):
        ready_s = min(ready_s, queue_ready_s(state, e, queue))
    state.next_start_s[e] = max(state.now_s[e], ready_s)


@compiled
def queue_ready_s(state: Any, e: int, queue: int) -> float:
    """When a batch of this queue is full or has waited long enough."""
    head = state.queue_head[queue]
    if head < 0:
        return np.inf
    waited_s = state.row_arrival_s[head] + state.max_wait_s[e]
    if state.queue_length[queue] >= state.max_batch_size[e]:
        return min(waited_s, state.queue_full_s[queue])
    return waited_s


@compiled
def start_lane(state: Any, e: int, lane: int, time_s: float) -> None:
    """Put a step in flight; its seconds by resource stand in state.lane_seconds."""
    seconds = state.lane_seconds[e, lane]
    duration_s = seconds[0] + seconds[1] + seconds[2] + seconds[3]
    if duration_s < SHORTEST_STEP_S:
        seconds[3] += SHORTEST_STEP_S - duration_s
        duration_s = SHORTEST_STEP_S
    state.lane_start_s[e, lane] = time_s
    state.lane_end_s[e, lane] = time_s + duration_s
    state.num_in_flight[e] += 1
    group = state.group_of[e]
    if state.group_contended[group] != 0:
        state.lane_remaining_s[e, lane] = duration_s
        state.lane_updated_s[e, lane] = time_s
        state.lane_speed[e, lane] = 1.0
        state.lane_retimed[e, lane] = 0
        retime(state, group, time_s)


@compiled
def begin_step(state: Any, e: int, time_s: float) -> None:
    """Decide a batch, price it, put it in flight. Nothing to run: the engine waits for the next push or end."""
    lane = free_lane(state, e)
    state.now_s[e] = max(state.now_s[e], time_s)
    if state.engine_kind[e] == JOBS:
        begin_jobs(state, e, lane, time_s)
        set_next_start(state, e)
        return
    if schedule(state, e, lane, time_s) == 0:
        state.next_start_s[e] = np.inf
        return
    price_tokens(state, e, lane)
    start_lane(state, e, lane, time_s)
    state.next_start_s[e] = np.inf
    if state.num_lanes[e] > 1:
        hold_back(state, e, lane)
        if state.num_in_flight[e] < state.num_lanes[e]:
            state.next_start_s[e] = pipeline_free_s(state, e)


@compiled
def price_tokens(state: Any, e: int, lane: int) -> None:
    """Seconds by resource of the scheduled batch, and its counts for the totals."""
    batch = state.scratch_batch
    kind = state.cost_kind[e]
    seconds = state.scratch_seconds
    step_cost(
        state.cost_linear[kind],
        state.cost_decode_linear[kind],
        state.cost_sampled[kind],
        state.cost_attention[kind],
        batch[NUM_TOKENS],
        batch[NUM_SAMPLED],
        batch[NUM_DECODE],
        batch[DECODE_CONTEXT_SUM],
        batch[DECODE_CONTEXT_MAX],
        batch[NUM_PREFILL],
        batch[PREFILL_TOKEN_PAIRS],
        batch[PREFILL_CONTEXT_SUM],
        seconds,
    )
    duration_s = 0.0
    for resource in range(4):
        state.lane_seconds[e, lane, resource] = seconds[resource]
        duration_s += seconds[resource]
    state.lane_demand[e, lane, MEMORY] = seconds[MEMORY] / max(duration_s, SHORTEST_STEP_S)
    state.lane_num_tokens[e, lane] = batch[NUM_TOKENS]
    used = state.num_blocks[e] - state.num_free_blocks[e]
    state.lane_used_blocks[e, lane] = used
    state.peak_used_blocks[e] = max(state.peak_used_blocks[e], used)
    state.total_tokens[e] += batch[NUM_TOKENS]
    state.total_sampled[e] += batch[NUM_SAMPLED]
    state.total_decode_tokens[e] += batch[NUM_DECODE]
    state.total_prefill_tokens[e] += batch[NUM_TOKENS] - batch[NUM_DECODE]
    state.total_decode_context[e] += batch[DECODE_CONTEXT_SUM]
    state.total_prefill_pairs[e] += batch[PREFILL_TOKEN_PAIRS]
    state.total_prefill_context[e] += batch[PREFILL_CONTEXT_SUM]


@compiled
def begin_jobs(state: Any, e: int, lane: int, time_s: float) -> None:
    """A worker takes a batch of the queue that has been ready longest."""
    first = state.first_queue[e]
    chosen = first
    for queue in range(first, first + state.num_queues[e]):
        if queue_ready_s(state, e, queue) < queue_ready_s(state, e, chosen):
            chosen = queue
    number = min(state.queue_length[chosen], state.max_batch_size[e])
    units = 0.0
    timed_s = 0.0
    for place in range(number):
        row = np.int64(pop(state, chosen))
        state.lane_jobs[e, lane, place] = row
        state.row_start_s[row] = time_s
        units += state.row_units[row]
        timed_s = max(timed_s, state.row_seconds[row])
    if state.queue_length[chosen] >= state.max_batch_size[e]:
        state.queue_full_s[chosen] = time_s
    state.lane_num_scheduled[e, lane] = number
    state.lane_num_tokens[e, lane] = number
    state.total_units[chosen] += units
    state.total_jobs[chosen] += number
    state.total_batches[chosen] += 1
    demand = read_curve(state, chosen, units, state.lane_seconds[e, lane])
    state.lane_seconds[e, lane, 0] += timed_s
    state.lane_demand[e, lane, MEMORY] = demand
    start_lane(state, e, lane, time_s)


@compiled
def read_curve(state: Any, queue: int, units: float, seconds: Any) -> float:
    """Interpolate a job's cost curve into `seconds` [4]; returns the share of memory bandwidth it uses alone."""
    xs = state.curve_units[queue]
    low = 0
    high = state.curve_num_points[queue] - 1
    if high == 0 or units <= xs[0]:
        high = 0
    else:
        while high - low > 1:
            middle = (low + high) // 2
            if xs[middle] <= units:
                low = middle
            else:
                high = middle
    weight = 0.0
    if high > low:
        weight = (units - xs[low]) / (xs[high] - xs[low])
    for resource in range(4):
        left = state.curve_seconds[queue, low, resource]
        right = state.curve_seconds[queue, high, resource]
        seconds[resource] = left + weight * (right - left)
    demand = state.curve_demand[queue]
    return min(1.0, demand[low] + weight * (demand[high] - demand[low]))


@compiled
def step_energy_j(state: Any, e: int, lane: int) -> float:
    """Energy of a step: seconds by limiting resource times the power while it limits."""
    energy_j = 0.0
    for resource in range(4):
        energy_j += state.lane_seconds[e, lane, resource] * state.power_w[e, resource]
    return energy_j


@compiled
def add_shares(state: Any, e: int, lane: int, duration_s: float) -> None:
    """Add a finished step to the engine's running sums; a sequence that decodes reads its part as a difference."""
    energy_j = step_energy_j(state, e, lane)
    for resource in range(4):
        state.shares[e, resource] += state.lane_seconds[e, lane, resource]
    number = state.lane_num_tokens[e, lane]
    state.shares[e, ENERGY] += energy_j / number
    state.shares[e, ENGINE_TIME] += duration_s / number
    state.num_steps[e] += 1
    state.busy_s[e] += duration_s
    state.batch_integral_s[e] += duration_s * state.lane_num_scheduled[e, lane]
    state.blocks_integral_s[e] += duration_s * state.lane_used_blocks[e, lane]


@compiled
def end_step(state: Any, e: int, lane: int) -> None:
    """Progress, tokens, completions and sealed blocks of the step that ends now in this lane."""
    time_s = state.lane_end_s[e, lane]
    duration_s = time_s - state.lane_start_s[e, lane] - state.lane_held_s[e, lane]
    group = state.group_of[e]
    if state.group_contended[group] != 0 and state.lane_retimed[e, lane] != 0:
        # what the others' traffic cost is time limited by memory
        seconds = state.lane_seconds[e, lane]
        seconds[MEMORY] += duration_s - (seconds[0] + seconds[1] + seconds[2] + seconds[3])
    state.lane_end_s[e, lane] = np.inf
    state.num_in_flight[e] -= 1
    state.now_s[e] = max(state.now_s[e], time_s)
    add_shares(state, e, lane, duration_s)
    if state.engine_kind[e] == JOBS:
        end_jobs(state, e, lane, time_s, duration_s)
    else:
        end_tokens(state, e, lane, time_s, duration_s)
        grant_reservations(state, e, time_s)
    set_next_start(state, e)
    if state.group_contended[group] != 0:
        retime(state, group, time_s)


@compiled
def end_jobs(state: Any, e: int, lane: int, time_s: float, duration_s: float) -> None:
    """Every job of the batch ends with it."""
    number = state.lane_num_scheduled[e, lane]
    energy_j = step_energy_j(state, e, lane)
    for place in range(number):
        row = np.int64(state.lane_jobs[e, lane, place])
        for resource in range(4):
            state.row_shares[row, resource] += state.lane_seconds[e, lane, resource]
        state.row_shares[row, ENERGY] += energy_j / number
        state.row_shares[row, ENGINE_TIME] += duration_s / number
        state.load_requests[e] -= 1
        state.load_tokens[e] -= np.int64(state.row_units[row])
        close_visit(state, e, row, time_s)


@compiled
def end_tokens(state: Any, e: int, lane: int, time_s: float, duration_s: float) -> None:
    """Every scheduled sequence progresses; those with all their tokens leave."""
    one_lane = state.num_lanes[e] == 1
    number = state.lane_num_tokens[e, lane]
    energy_j = step_energy_j(state, e, lane)
    num_regular_gaps = 0
    num_kept = 0
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        if state.slot_lane[e, slot] != lane:
            if one_lane and is_decoding(state, e, slot):
                # skipped by this step: its gap grows, its part of the running sums must not
                row = np.int64(state.slot_row[e, slot])
                if np.isnan(state.row_last_token_s[row]):
                    state.row_last_token_s[row] = state.lane_start_s[e, lane]
                for resource in range(4):
                    state.slot_base[e, slot, resource] += state.lane_seconds[e, lane, resource]
                state.slot_base[e, slot, ENERGY] += energy_j / number
                state.slot_base[e, slot, ENGINE_TIME] += duration_s / number
            state.running[e, num_kept] = slot
            num_kept += 1
            continue
        num_tokens = np.int64(state.slot_scheduled[e, slot])
        state.slot_scheduled[e, slot] = 0
        state.slot_lane[e, slot] = -1
        row = np.int64(state.slot_row[e, slot])
        decoding = is_decoding(state, e, slot)
        if not (decoding and one_lane):
            for resource in range(4):
                state.row_shares[row, resource] += state.lane_seconds[e, lane, resource]
            state.row_shares[row, ENERGY] += energy_j * num_tokens / number
            state.row_shares[row, ENGINE_TIME] += duration_s * num_tokens / number
            for share in range(NUM_SHARES):
                state.slot_base[e, slot, share] = state.shares[e, share]
        computed = np.int64(state.slot_computed[e, slot])
        state.slot_computed[e, slot] = computed + num_tokens
        seal(state, e, slot, computed, computed + num_tokens)
        state.load_tokens[e] -= num_tokens
        finished = False
        if tokens_to_do(state, e, slot) == 0:
            if state.row_output[row] > 0:
                state.row_generated[row] += 1
                state.load_output_tokens[e] -= 1
                if state.row_generated[row] > 1:
                    if np.isnan(state.row_last_token_s[row]):
                        num_regular_gaps += 1
                    else:
                        count_gap(state, time_s, time_s - state.row_last_token_s[row], 1)
                        state.row_last_token_s[row] = np.nan
            finished = state.row_generated[row] >= state.row_output[row]
            if finished and decoding and one_lane:
                for share in range(NUM_SHARES):
                    state.row_shares[row, share] += state.shares[e, share] - state.slot_base[e, slot, share]
            if state.row_continues_as[row] >= 0:
                row = hand_over(state, e, slot, row, time_s)
            if not one_lane and not finished:
                state.row_last_token_s[row] = time_s
        if finished:
            state.load_requests[e] -= 1
            if state.row_flags[row] & HOLDS_KV == 0:
                release(state, e, slot)
            close_visit(state, e, row, time_s)
        else:
            state.running[e, num_kept] = slot
            num_kept += 1
    state.num_running[e] = num_kept
    if num_regular_gaps > 0:
        count_gap(state, time_s, duration_s, num_regular_gaps)


@compiled
def hand_over(state: Any, e: int, slot: int, row: int, time_s: float) -> int:
    """Prefill is over and decode goes on in the same engine: the sequence now stands for the decode visit."""
    after = np.int64(state.row_continues_as[row])
    state.row_prompt[after] = state.row_prompt[row]
    state.row_output[after] = state.row_output[row]
    state.row_generated[after] = state.row_generated[row]
    state.row_priority[after] = state.row_priority[row]
    state.row_order[after] = state.row_order[row]
    state.row_engine[after] = e
    state.row_arrival_s[after] = time_s
    state.row_start_s[after] = time_s
    state.row_slot[after] = slot
    state.row_slot[row] = -1
    state.slot_row[e, slot] = after
    close_visit(state, e, row, time_s)
    return after


@compiled
def reserve_now(state: Any, e: int, row: int) -> bool:
    """Blocks for a prompt whose KV comes from elsewhere (rule 18), if they are free; takes them."""
    block_tokens = state.block_tokens[e]
    num_computed = state.row_prompt[row] + state.row_generated[row] - 1
    num_needed = (num_computed + 1 + block_tokens - 1) // block_tokens
    if num_needed > state.num_free_blocks[e] or state.num_free_slots[e] == 0:
        return False
    slot = take_slot(state, e, row)
    grow(state, e, slot, num_needed)
    state.slot_computed[e, slot] = num_computed
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
