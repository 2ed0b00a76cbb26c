"""KV that is kept while its request is away: a tool runs, a user thinks (kv_cache.while_waiting: keep).

It stays in its slot, owned by the visit that has ended, until the visit that goes on from it comes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import HAS_KV, KEPT, LOADED
from hermes_sim.state.blocks import release


@compiled
def end_wait(state: Any, e: int, row: int, time_s: float) -> None:
    """The KV of an ended visit is kept no longer; how long it was is counted."""
    slot = np.int64(state.row_slot[row])
    num_blocks = state.slot_blocks[e, slot] - state.slot_first[e, slot] + state.slot_extras[e, slot]
    state.kept_block_s[e] += num_blocks * (time_s - state.row_finish_s[row])
    state.row_flags[row] &= np.uint8(255 - KEPT)
    state.num_kept[e] -= 1


@compiled
def take_up(state: Any, e: int, row: int, time_s: float) -> None:
    """A visit that has joined the line finds the KV kept that it goes on from: the slot is its own now."""
    before: Any = np.int64(state.row_came_from[row])
    if state.row_flags[before] & KEPT == 0 or state.row_engine[before] != e:
        return
    end_wait(state, e, before, time_s)
    slot: Any = np.int64(state.row_slot[before])
    state.row_slot[before] = -1
    state.row_slot[row] = slot
    state.slot_row[e, slot] = row
    own_again(state, e, slot, row)
    done = np.int64(state.slot_done[e, slot])
    num_full = done // state.block_tokens[e]
    state.row_cached[row] = done
    state.total_cached_tokens[e] += done
    state.total_hit_blocks[e] += num_full
    state.total_looked_up_blocks[e] += max((np.int64(state.row_prompt[row]) - 1) // state.block_tokens[e], num_full)


@compiled
def own_again(state: Any, e: int, slot: int, row: int) -> None:
    """A prompt whose slot holds the KV of its first tokens; the rest is to be computed."""
    state.row_flags[row] |= np.uint8(HAS_KV + LOADED)
    state.load_tokens[e] -= np.int64(state.slot_done[e, slot])


@compiled
def let_one_go(state: Any, e: int, time_s: float) -> bool:
    """Nothing runs and nothing fits: the KV that has been kept longest goes back to the prefix cache."""
    oldest: Any = np.int64(-1)
    oldest_s = np.inf
    if state.num_kept[e] == 0:
        return False
    for place in range(state.slot_row.shape[1]):
        row: Any = np.int64(state.slot_row[e, place])
        if row < 0 or state.row_flags[row] & KEPT == 0:
            continue
        kept_s = state.row_finish_s[row]
        if oldest < 0 or kept_s < oldest_s or (kept_s == oldest_s and row < oldest):
            oldest, oldest_s = row, kept_s
    slot: Any = np.int64(state.row_slot[oldest])
    end_wait(state, e, oldest, time_s)
    release(state, e, slot)
    return True
