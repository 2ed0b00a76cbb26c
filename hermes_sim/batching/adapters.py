"""Low-rank adapters of an engine: which are in its slots, who may be admitted beside whom, what a miss loads.

As in vLLM: sequences of at most `max_loras` adapters run together, a waiting one that would be one too many is passed
over; a missing adapter takes the slot of the one that nobody has used for longest, and the step waits for its weights.
An engine without adapters (max_adapters 0) does nothing of this. Rows hold the adapter's number plus one, 0 for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled

HEAD_IS_FINE = -1
NOBODY = -2


@compiled
def count_running_adapters(state: Any, e: int) -> int:
    """Adapters of the running sequences, each marked with the number of this count. Returns how many have one."""
    state.adapter_count[e] += 1
    number = np.int64(0)
    num_adapters = np.int64(0)
    for place in range(state.num_running[e]):
        adapter = np.int64(state.row_adapter[state.slot_row[e, state.running[e, place]]]) - 1
        if adapter < 0:
            continue
        number += 1
        if state.adapter_mark[e, adapter] != state.adapter_count[e]:
            state.adapter_mark[e, adapter] = state.adapter_count[e]
            num_adapters += 1
    state.num_running_adapters[e] = num_adapters
    return number


@compiled
def may_join(state: Any, e: int, row: int) -> bool:
    """Whether a sequence's adapter is among those that run, or there is a slot for one more."""
    adapter = np.int64(state.row_adapter[row]) - 1
    return (
        adapter < 0
        or state.adapter_mark[e, adapter] == state.adapter_count[e]
        or state.num_running_adapters[e] < state.max_adapters[e]
    )


@compiled
def first_that_may_join(state: Any, e: int, queue: int) -> int:
    """The row before the first in line that may join; HEAD_IS_FINE, or NOBODY."""
    row = np.int64(state.queue_head[queue])
    if may_join(state, e, row):
        return np.int64(HEAD_IS_FINE)
    while state.row_next[row] >= 0:
        if may_join(state, e, np.int64(state.row_next[row])):
            return row
        row = np.int64(state.row_next[row])
    return np.int64(NOBODY)


@compiled
def put_back(state: Any, queue: int, before: int) -> None:
    """The head of the line, which was brought forward and not admitted, goes back behind `before`."""
    row = np.int64(state.queue_head[queue])
    state.queue_head[queue] = state.row_next[row]
    state.row_next[row] = state.row_next[before]
    state.row_next[before] = row
    if state.row_next[row] < 0:
        state.queue_tail[queue] = row


@compiled
def use_adapter(state: Any, e: int, row: int) -> None:
    """A sequence joins: its adapter counts as running, and is loaded if it is in no slot."""
    adapter = np.int64(state.row_adapter[row]) - 1
    if adapter < 0:
        return
    if state.adapter_mark[e, adapter] != state.adapter_count[e]:
        state.adapter_mark[e, adapter] = state.adapter_count[e]
        state.num_running_adapters[e] += 1
    if state.adapter_slot[e, adapter] > 0:
        state.total_adapter_hits[e] += 1
        return
    chosen = np.int64(-1)
    for slot in range(state.max_adapters[e]):
        held = np.int64(state.slot_adapter[e, slot]) - 1
        if held < 0:
            chosen = slot
            break
        if state.adapter_mark[e, held] == state.adapter_count[e]:
            continue
        if chosen < 0 or state.adapter_used_s[e, held] < state.adapter_used_s[e, state.slot_adapter[e, chosen] - 1]:
            chosen = slot
    given_up = np.int64(state.slot_adapter[e, chosen]) - 1
    if given_up >= 0:
        state.adapter_slot[e, given_up] = 0
    state.slot_adapter[e, chosen] = adapter + 1
    state.adapter_slot[e, adapter] = chosen + 1
    state.pending_adapter_loads[e] += 1
    state.total_adapter_loads[e] += 1


@compiled
def leave_adapter(state: Any, e: int, row: int, time_s: float) -> None:
    """A sequence stops running: its adapter was used until now."""
    adapter = np.int64(state.row_adapter[row]) - 1
    if adapter >= 0:
        state.adapter_used_s[e, adapter] = time_s


@compiled
def forget_adapters(state: Any, e: int) -> None:
    """The slots are empty."""
    for slot in range(state.max_adapters[e]):
        if state.slot_adapter[e, slot] > 0:
            state.adapter_slot[e, state.slot_adapter[e, slot] - 1] = 0
        state.slot_adapter[e, slot] = 0
    state.pending_adapter_loads[e] = 0


@compiled
def adapter_seconds(state: Any, e: int, num_tokens: int, num_adapters: int) -> float:
    """What the adapters of a step add: kernels, the weights of each adapter in it once, tokens through them."""
    if num_tokens == 0:
        return 0.0
    return state.adapter_step_s[e] + num_adapters * state.adapter_weight_s[e] + num_tokens * state.adapter_token_s[e]
