"""Prompts of one step in a rectangle: padded to the longest, or packed into rows of that length (prepacking,
arXiv 2404.09529)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled

PADDED = 1
PACKED = 2


@compiled
def num_rows_packed(lengths: Any, number: int, longest: int, room: Any) -> int:
    """Rows of `longest` tokens that first-fit-decreasing fills. `lengths` is sorted in place; `room` is scratch."""
    for i in range(1, number):  # insertion sort, largest first: a batch is short
        length = lengths[i]
        j = i - 1
        while j >= 0 and lengths[j] < length:
            lengths[j + 1] = lengths[j]
            j -= 1
        lengths[j + 1] = length
    num_rows = 0
    for i in range(number):
        row = 0
        while row < num_rows and room[row] < lengths[i]:
            row += 1
        if row == num_rows:
            room[row] = longest
            num_rows += 1
        room[row] -= lengths[i]
    return np.int64(num_rows)


@compiled
def num_rows_of(state: Any, e: int, number: int, longest: int) -> int:
    """Rows that the `number` prompts in state.scratch_order take up."""
    if state.prompt_padding[e] == PACKED:
        return num_rows_packed(state.scratch_order, number, longest, state.scratch_room)
    return np.int64(number)


@compiled
def cost_tokens_with(state: Any, e: int, one_more: int) -> int:
    """Tokens that the step would compute, padding included, with one more prompt of so many tokens."""
    lengths = state.scratch_order
    lengths[0] = one_more
    number = 1
    longest = np.int64(one_more)
    for place in range(state.num_running[e]):
        num_tokens = np.int64(state.slot_scheduled[e, state.running[e, place]])
        if num_tokens > 0:
            lengths[number] = num_tokens
            longest = max(longest, num_tokens)
            number += 1
    return num_rows_of(state, e, number, longest) * longest


@compiled
def num_rows_in_lane(state: Any, e: int, lane: int, longest: int) -> int:
    """Rows of the prompts of a step that has been put in flight."""
    number = state.lane_num_scheduled[e, lane]
    for place in range(number):
        state.scratch_order[place] = state.lane_slot_tokens[e, lane, place]
    return num_rows_of(state, e, number, longest)
