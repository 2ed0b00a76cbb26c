"""What engines have done by evenly spaced times: cumulative counters, linear within a step.

The points cost nothing but when a step passes one. When time runs over the last point the spacing doubles and every
second point is dropped, so that a run of any length has a few hundred.
"""

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
)
from hermes_sim.core.compiled import compiled
from hermes_sim.state import arrays as names


@compiled
def pass_points(state: Any, e: int, lane: int, start_s: float, end_s: float, num_sampled: int) -> None:
    """Write the points up to the end of the step in `lane`, which the totals hold already."""
    after = np.zeros(names.TIMELINE_COLUMNS)
    increment = np.zeros(names.TIMELINE_COLUMNS)
    read_totals(state, e, after)
    read_step(state, e, lane, num_sampled, increment)
    while state.timeline_next_s[e] <= end_s:
        if state.timeline_filled[e] == names.TIMELINE_POINTS:
            double_interval(state)
            continue
        point = state.timeline_filled[e]
        point_s = state.timeline_next_s[e]
        left = 1.0
        if point_s > start_s:
            left = (end_s - point_s) / (end_s - start_s)
        for column in range(names.TIMELINE_COLUMNS):
            state.timeline[e, point, column] = after[column] - left * increment[column]
        state.timeline_filled[e] = point + 1
        state.timeline_next_s[e] = (point + 1) * state.timeline_interval_s[0]


@compiled
def double_interval(state: Any) -> None:
    """Every second point goes, in all engines."""
    state.timeline_interval_s[0] *= 2.0
    for e in range(state.timeline.shape[0]):
        number = (state.timeline_filled[e] + 1) // 2
        for point in range(number):
            for column in range(names.TIMELINE_COLUMNS):
                state.timeline[e, point, column] = state.timeline[e, 2 * point, column]
        state.timeline_filled[e] = number
        state.timeline_next_s[e] = number * state.timeline_interval_s[0]


@compiled
def read_totals(state: Any, e: int, out: Any) -> None:
    """The counters as they stand."""
    out[names.TIMELINE_BUSY_S] = state.busy_s[e]
    for resource in range(4):
        out[names.TIMELINE_COMPUTE_S + resource] = state.shares[e, resource]
    out[names.TIMELINE_BATCH_INTEGRAL_S] = state.batch_integral_s[e]
    out[names.TIMELINE_BLOCKS_INTEGRAL_S] = state.blocks_integral_s[e]
    out[names.TIMELINE_STEPS] = state.num_steps[e]
    out[names.TIMELINE_TOKENS] = state.total_tokens[e]
    out[names.TIMELINE_SAMPLED] = state.total_sampled[e]
    out[names.TIMELINE_DECODE_TOKENS] = state.total_decode_tokens[e]
    out[names.TIMELINE_DECODE_CONTEXT] = state.total_decode_context[e]
    out[names.TIMELINE_PREFILL_PAIRS] = state.total_prefill_pairs[e]
    out[names.TIMELINE_PREFILL_CONTEXT] = state.total_prefill_context[e]
    out[names.TIMELINE_PREEMPTIONS] = state.total_preemptions[e]
    out[names.TIMELINE_HIT_BLOCKS] = state.total_hit_blocks[e]
    out[names.TIMELINE_LOOKED_UP_BLOCKS] = state.total_looked_up_blocks[e]
    out[names.TIMELINE_DRAFTED] = state.total_drafted[e]
    out[names.TIMELINE_ACCEPTED] = state.total_accepted[e]


@compiled
def read_step(state: Any, e: int, lane: int, num_sampled: int, out: Any) -> None:
    """What the step in this lane added. Preemptions, hits and accepted drafts count at once, not over the step."""
    batch = state.lane_batch[e, lane]
    duration_s = 0.0
    for resource in range(4):
        out[names.TIMELINE_COMPUTE_S + resource] = state.lane_seconds[e, lane, resource]
        duration_s += state.lane_seconds[e, lane, resource]
    out[names.TIMELINE_BUSY_S] = duration_s
    out[names.TIMELINE_BATCH_INTEGRAL_S] = duration_s * state.lane_num_scheduled[e, lane]
    out[names.TIMELINE_BLOCKS_INTEGRAL_S] = duration_s * state.lane_used_blocks[e, lane]
    out[names.TIMELINE_STEPS] = 1.0
    out[names.TIMELINE_TOKENS] = batch[NUM_TOKENS]
    out[names.TIMELINE_SAMPLED] = num_sampled
    out[names.TIMELINE_DECODE_TOKENS] = batch[NUM_DECODE_TOKENS]
    out[names.TIMELINE_DECODE_CONTEXT] = batch[DECODE_CONTEXT_SUM]
    out[names.TIMELINE_PREFILL_PAIRS] = batch[PREFILL_TOKEN_PAIRS]
    out[names.TIMELINE_PREFILL_CONTEXT] = batch[PREFILL_CONTEXT_SUM]
    out[names.TIMELINE_DRAFTED] = batch[NUM_DRAFTED]
