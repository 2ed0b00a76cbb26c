"""What becomes of a sequence's KV while its request is away (kv_cache.while_waiting): kept, dropped, offloaded.

Kept KV stays in its slot (batching/while_waiting.py); dropped KV is forgotten at once; offloaded KV goes to the host
and comes back as that of a preempted sequence does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import note
from hermes_sim.batching.preemption import num_host_blocks
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.prompt_estimate import prompt_seconds
from hermes_sim.state.arrays import KEPT, SWAPPED_OUT, WAIT_AUTO, WAIT_DROP, WAIT_KEEP, WAIT_OFFLOAD
from hermes_sim.state.blocks import forget_blocks, release


@compiled
def least_waste(state: Any, e: int, slot: int, row: int) -> int:
    """The way that wastes least memory times time, in blocks x seconds (InferCept, arXiv 2402.01869, equations 2 to 4).

    keep: its blocks for the expected wait; drop: half of them, on average, and all others' while it is computed again;
    offload: all blocks in use while the engine sends it out and takes it back.
    """
    own = np.float64(state.slot_blocks[e, slot] - state.slot_first[e, slot])
    others = np.float64(state.num_blocks[e] - state.num_free_blocks[e]) - own
    done: Any = np.int64(state.slot_done[e, slot])
    again_s = prompt_seconds(state, e, 0, done)
    keep = own * state.row_wait_s[row]
    drop = again_s * (own / 2.0 + others)
    num_blocks = num_host_blocks(state, e, done)
    if num_blocks > state.offload_blocks[e] - state.num_swapped_blocks[e]:
        return WAIT_KEEP if keep <= drop else WAIT_DROP
    offload = 2.0 * state.swap_block_s[e] * num_blocks * (own + others)
    if keep <= drop and keep <= offload:
        return WAIT_KEEP
    return WAIT_DROP if drop <= offload else WAIT_OFFLOAD


@compiled
def set_aside(state: Any, e: int, slot: int, row: int) -> None:
    """A sequence has all its tokens, and its request comes back for another pass that begins with them.

    It is kept as long as slots are left for a full batch; else, and where the host has no room, its blocks wait in the
    prefix cache, or are dropped.
    """
    way = state.while_waiting[e]
    if way == WAIT_AUTO:
        way = least_waste(state, e, slot, row)
    done: Any = np.int64(state.slot_done[e, slot])
    num_blocks = num_host_blocks(state, e, done)
    if way == WAIT_OFFLOAD and not 0 < num_blocks <= state.offload_blocks[e] - state.num_swapped_blocks[e]:
        way = WAIT_DROP  # the host is full
    if way == WAIT_KEEP and state.num_free_slots[e] >= state.max_num_seqs[e]:
        state.row_flags[row] |= np.uint8(KEPT)
        state.num_kept[e] += 1
        state.total_kept[e] += 1
        return
    if way == WAIT_OFFLOAD:
        state.row_swapped[state.row_returns_as[row]] = done
        state.num_swapped_blocks[e] += num_blocks
        state.pending_swaps[e] += num_blocks
        state.total_swapped_blocks[e] += num_blocks
        state.total_offloaded[e] += 1
        note(state, e, SWAPPED_OUT, row, num_blocks)
    if way == WAIT_DROP:
        state.total_dropped[e] += 1
    if way in (WAIT_DROP, WAIT_OFFLOAD):
        forget_blocks(state, e, slot)
    release(state, e, slot)
