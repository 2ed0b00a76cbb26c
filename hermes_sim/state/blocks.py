"""Paged KV blocks of one engine: free queue, owners, prefix cache (rules 9 to 11 of docs/modelling.md; vLLM V1).

The free queue is a doubly linked list in order of last use with a sentinel; a block without an owner waits in it with
its hash intact and loses the hash when it is used again. A sequence's blocks are counted from its front; where layers
look back over a window only, blocks out of it are given up (all layers), or the first few cost extra blocks for the
groups of such layers (hybrid models: vLLM's KV cache groups, each pool block the bytes of one group's layers).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.hashes import (
    NEVER_PRIVATE,
    ROOT_HASH,
    block_content,
    delete_hash,
    find_block,
    first_private_block,
    insert_hash,
    mix,
)


@compiled
def take_from_free_queue(state: Any, e: int, block: int) -> None:
    """A block that had no owner leaves the free queue."""
    after, before = state.block_next[e], state.block_previous[e]
    after[before[block]] = after[block]
    before[after[block]] = before[block]
    state.num_free_blocks[e] -= 1


@compiled
def take_block(state: Any, e: int) -> int:
    """The free block that was used longest ago; what it cached is lost. The caller has checked that there is one.

    In a radix tree only leaves can go: the first block without cached children.
    """
    after = state.block_next[e]
    block = after[state.block_next.shape[1] - 1]
    if state.radix[e] != 0:
        while state.block_children[e, block] > 0:
            block = after[block]
    take_from_free_queue(state, e, block)
    if state.block_hash[e, block] != np.uint64(0):
        delete_hash(state.hash_keys[e], state.hash_blocks[e], state.block_hash[e, block])
        state.block_hash[e, block] = np.uint64(0)
        if state.radix[e] != 0 and state.block_parent[e, block] >= 0:
            state.block_children[e, state.block_parent[e, block]] -= 1
            state.block_parent[e, block] = -1
    state.block_owners[e, block] = 1
    return block


@compiled
def give_block(state: Any, e: int, block: int) -> None:
    """One owner less; without any it waits at the tail of the free queue (radix: at the front if it caches nothing)."""
    state.block_owners[e, block] -= 1
    if state.block_owners[e, block] > 0:
        return
    sentinel = state.block_next.shape[1] - 1
    after, before = state.block_next[e], state.block_previous[e]
    behind = before[sentinel]
    if state.radix[e] != 0 and state.block_hash[e, block] == np.uint64(0):
        behind = np.int32(sentinel)
    follower = after[behind]
    after[behind] = block
    before[block] = behind
    after[block] = follower
    before[follower] = block
    state.num_free_blocks[e] += 1


@compiled
def num_missing_blocks(state: Any, e: int, slot: int, num_needed: int) -> int:
    """Blocks of the pool that a sequence must get to own `num_needed` of its own."""
    missing = max(num_needed - state.slot_blocks[e, slot], 0)
    if state.window_groups[e] > 0:
        extras = state.window_groups[e] * min(num_needed, state.window_blocks[e])
        missing += max(extras - state.slot_extras[e, slot], 0)
    return missing


@compiled
def num_pool_blocks(state: Any, e: int, num_blocks: int) -> int:
    """Blocks of the pool that a sequence of so many blocks holds."""
    if state.window_groups[e] > 0:
        return num_blocks + state.window_groups[e] * min(num_blocks, state.window_blocks[e])
    return num_blocks


@compiled
def first_in_window(state: Any, e: int, num_computed: int) -> int:
    """Index of the first block that the next token still looks at."""
    if state.full_layers[e] != 0:
        return 0
    return max(0, num_computed // state.block_tokens[e] + 1 - state.window_blocks[e])


@compiled
def drop_out_of_window(state: Any, e: int, slot: int) -> None:
    """Where all layers look back over a window only, blocks before it are given up, hash intact."""
    if state.full_layers[e] != 0:
        return
    first = first_in_window(state, e, state.slot_computed[e, slot])
    for index in range(min(first, state.slot_blocks[e, slot]) - 1, state.slot_first[e, slot] - 1, -1):
        give_block(state, e, state.block_table[e, slot, index])
    state.slot_first[e, slot] = max(state.slot_first[e, slot], min(first, state.slot_blocks[e, slot]))


@compiled
def grow(state: Any, e: int, slot: int, num_needed: int) -> None:
    """Give a sequence fresh blocks until it owns `num_needed`. The caller has checked that they are free."""
    table = state.block_table[e, slot]
    for index in range(state.slot_blocks[e, slot], num_needed):
        table[index] = take_block(state, e)
    state.slot_blocks[e, slot] = max(state.slot_blocks[e, slot], num_needed)
    if state.window_groups[e] > 0:
        extras = state.window_groups[e] * min(np.int64(state.slot_blocks[e, slot]), state.window_blocks[e])
        for index in range(state.slot_extras[e, slot], extras):
            state.window_table[e, slot, index] = take_block(state, e)
        state.slot_extras[e, slot] = extras


@compiled
def seal(state: Any, e: int, slot: int, num_tokens: int) -> None:
    """Blocks that are full with the first `num_tokens` of a sequence can be found from now on by their chained hash.

    A block whose twin is cached already stays without a hash, and the chain goes on through it; a radix tree keeps
    one copy: the sequence shares the twin and gives its own block up. What only this request could find again, after
    a preemption, is entered then (`seal_private`).
    """
    full = np.int64(state.slot_full[e, slot])
    if num_tokens < (full + 1) * state.block_tokens[e] or state.prefix_caching[e] == 0:
        return
    last = num_tokens // state.block_tokens[e]
    state.slot_full[e, slot] = last
    if state.slot_sealed[e, slot] < state.slot_private[e, slot]:
        enter_hashes(state, e, slot, min(last, state.slot_private[e, slot]))


@compiled
def seal_private(state: Any, e: int, slot: int) -> None:
    """The sequence is about to lose its blocks and come back: it must find its own text again."""
    state.slot_private[e, slot] = NEVER_PRIVATE
    if state.prefix_caching[e] != 0:
        enter_hashes(state, e, slot, np.int64(state.slot_full[e, slot]))


@compiled
def enter_hashes(state: Any, e: int, slot: int, last: int) -> None:
    """Chained hashes of the blocks from the last sealed one up to `last`."""
    block_tokens = state.block_tokens[e]
    first = np.int64(state.slot_sealed[e, slot])
    if last <= first:
        return
    row = np.int64(state.slot_row[e, slot])
    table = state.block_table[e, slot]
    key = state.slot_hash[e, slot]
    for index in range(first, last):
        key = mix(key, block_content(state, row, index, block_tokens))
        if index < state.slot_first[e, slot]:
            continue
        block = table[index]
        if insert_hash(state.hash_keys[e], state.hash_blocks[e], key, block):
            state.block_hash[e, block] = key
            if state.radix[e] != 0 and index > 0:
                state.block_parent[e, block] = table[index - 1]
                state.block_children[e, table[index - 1]] += 1
        elif state.radix[e] != 0:
            share_twin(state, e, slot, index, find_block(state.hash_keys[e], state.hash_blocks[e], key))
    state.slot_hash[e, slot] = key
    state.slot_sealed[e, slot] = last


@compiled
def share_twin(state: Any, e: int, slot: int, index: int, twin: int) -> None:
    """The sequence's block of that index is given up for the cached one of equal content."""
    own = state.block_table[e, slot, index]
    if own == twin:
        return
    if state.block_owners[e, twin] == 0:
        take_from_free_queue(state, e, twin)
    state.block_owners[e, twin] += 1
    state.block_table[e, slot, index] = twin
    give_block(state, e, own)


@compiled
def release(state: Any, e: int, slot: int) -> None:
    """A sequence gives up its blocks, last one first, and its slot."""
    for index in range(state.slot_extras[e, slot] - 1, -1, -1):
        give_block(state, e, state.window_table[e, slot, index])
    table = state.block_table[e, slot]
    for index in range(state.slot_blocks[e, slot] - 1, state.slot_first[e, slot] - 1, -1):
        give_block(state, e, table[index])
    state.slot_blocks[e, slot] = 0
    state.slot_extras[e, slot] = 0
    state.slot_first[e, slot] = 0
    state.row_slot[state.slot_row[e, slot]] = -1
    state.slot_row[e, slot] = -1
    state.free_slots[e, state.num_free_slots[e]] = slot
    state.num_free_slots[e] += 1


@compiled
def forget_blocks(state: Any, e: int, slot: int) -> None:
    """Nobody shall find what only this sequence holds, last block first; a leaf's parent is a leaf then."""
    for index in range(state.slot_blocks[e, slot] - 1, state.slot_first[e, slot] - 1, -1):
        block = np.int64(state.block_table[e, slot, index])
        key = state.block_hash[e, block]
        if state.block_owners[e, block] > 1 or key == np.uint64(0):
            continue
        if state.radix[e] != 0 and state.block_children[e, block] > 0:
            continue
        delete_hash(state.hash_keys[e], state.hash_blocks[e], key)
        state.block_hash[e, block] = np.uint64(0)
        if state.radix[e] != 0 and state.block_parent[e, block] >= 0:
            state.block_children[e, state.block_parent[e, block]] -= 1
            state.block_parent[e, block] = -1


@compiled
def first_late_block(state: Any, e: int, row: int) -> int:
    """Index from which on nobody can find a visit's blocks but itself after a preemption, which it has not had."""
    if state.seal_private_late[0] == 0 or state.radix[e] != 0 or state.full_layers[e] == 0:
        return NEVER_PRIVATE
    if state.row_preemptions[row] > 0:
        return NEVER_PRIVATE
    return first_private_block(state, row, state.block_tokens[e])


@compiled
def take_slot(state: Any, e: int, row: int) -> int:
    """A slot for a visit; the caller has checked that one is free."""
    state.num_free_slots[e] -= 1
    slot = np.int64(state.free_slots[e, state.num_free_slots[e]])
    state.slot_row[e, slot] = row
    state.slot_blocks[e, slot] = 0
    state.slot_computed[e, slot] = 0
    state.slot_done[e, slot] = 0
    state.slot_scheduled[e, slot] = 0
    state.slot_drafted[e, slot] = 0
    state.slot_in_flight[e, slot] = 0
    state.slot_pending[e, slot] = 0
    state.slot_sealed[e, slot] = 0
    state.slot_first[e, slot] = 0
    state.slot_extras[e, slot] = 0
    state.slot_drafts[e, slot] = state.draft_tokens[e]
    state.slot_ready_s[e, slot] = 0.0
    state.slot_ready_drafts[e, slot] = 0
    state.slot_round_s[e, slot] = 0.0
    state.slot_pre_draft[e, slot] = 0
    state.slot_last_end_s[e, slot] = 0.0
    state.slot_hash[e, slot] = np.uint64(ROOT_HASH)
    state.slot_full[e, slot] = 0
    state.slot_private[e, slot] = first_late_block(state, e, row)
    state.row_slot[row] = slot
    return slot


@compiled
def count_hits(state: Any, e: int, row: int, num_tokens: int) -> Any:
    """(blocks found in the prefix cache, those to be shared that have no owner).

    The chain is followed to the first miss and capped so that at least one token is computed.
    """
    hits = np.int64(0)
    unowned = np.int64(0)
    if state.prefix_caching[e] == 0:
        return hits, unowned
    block_tokens = state.block_tokens[e]
    key = np.uint64(ROOT_HASH)
    for index in range(min((num_tokens - 1) // block_tokens, first_late_block(state, e, row))):
        key = mix(key, block_content(state, row, index, block_tokens))
        block = find_block(state.hash_keys[e], state.hash_blocks[e], key)
        if block < 0:
            break
        hits += 1
        if state.block_owners[e, block] == 0:
            unowned += 1
    first = first_in_window(state, e, hits * block_tokens)
    key = np.uint64(ROOT_HASH)
    for index in range(first):
        key = mix(key, block_content(state, row, index, block_tokens))
        if state.block_owners[e, find_block(state.hash_keys[e], state.hash_blocks[e], key)] == 0:
            unowned -= 1
    return hits, unowned


@compiled
def take_hits(state: Any, e: int, slot: int, num_hits: int) -> None:
    """The sequence shares the first `num_hits` cached blocks of its prompt (those in the window)."""
    block_tokens = state.block_tokens[e]
    row = np.int64(state.slot_row[e, slot])
    key = np.uint64(ROOT_HASH)
    table = state.block_table[e, slot]
    first = first_in_window(state, e, num_hits * block_tokens)
    for index in range(num_hits):
        key = mix(key, block_content(state, row, index, block_tokens))
        if index < first:
            continue
        block = find_block(state.hash_keys[e], state.hash_blocks[e], key)
        if state.block_owners[e, block] == 0:
            take_from_free_queue(state, e, block)
        state.block_owners[e, block] += 1
        table[index] = block
    state.slot_blocks[e, slot] = num_hits
    state.slot_first[e, slot] = first
    state.slot_hash[e, slot] = key
    state.slot_sealed[e, slot] = num_hits
    state.slot_full[e, slot] = num_hits


@compiled
def share_blocks(state: Any, e: int, slot: int, parent: int) -> None:
    """A fork owns the full blocks of its parent's prompt with it; its own tokens come later."""
    done = np.int64(state.slot_done[e, parent])
    num_full = done // state.block_tokens[e]
    first = min(state.slot_first[e, parent], num_full)
    for index in range(first, num_full):
        block = state.block_table[e, parent, index]
        state.block_owners[e, block] += 1
        state.block_table[e, slot, index] = block
    state.slot_blocks[e, slot] = num_full
    state.slot_first[e, slot] = first
    state.slot_computed[e, slot] = done
    state.slot_done[e, slot] = done
    state.slot_hash[e, slot] = state.slot_hash[e, parent]
    state.slot_sealed[e, slot] = min(np.int64(state.slot_sealed[e, parent]), np.int64(num_full))
    state.slot_full[e, slot] = state.slot_sealed[e, slot]
