"""Paged KV blocks of one engine: free queue, owners, chained-hash prefix cache (rules 9 to 11 of
docs/modelling.md; vLLM V1).

The free queue is a doubly linked list in order of last use with a sentinel; a block without an owner waits in it with
its hash intact and loses the hash when it is used again. The hash table uses open addressing with backward-shift
deletion. Key 0 means empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled

ROOT_HASH = 7
"""Parent of the first block."""


@compiled
def mix(first: Any, second: Any) -> Any:
    """64-bit hash of two 64-bit numbers, never 0 (finaliser of splitmix64, Steele et al., OOPSLA 2014)."""
    x = np.uint64(first) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(second) + np.uint64(0x7F4A7C159E3779B9)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    if x == np.uint64(0):
        x = np.uint64(1)
    return x


@compiled
def block_content(state: Any, row: int, index: int, block_tokens: int) -> Any:
    """What block `index` of a visit's sequence holds: a trace's hash id, a shared prefix, its session's
    history (which only ever grows), or the request's own text."""
    request = state.row_request[row]
    end = (index + 1) * block_tokens
    first = state.hash_offsets[request]
    num_ids = state.hash_offsets[request + 1] - first
    if num_ids > 0:
        trace_block = (end - 1) // state.hash_block_tokens[0]
        if trace_block < num_ids and end <= state.row_prompt[row]:
            return mix(mix(np.uint64(1), np.uint64(state.hash_ids[first + trace_block])), np.uint64(index))
    elif end <= state.content_group_tokens[request]:
        return mix(mix(np.uint64(2), np.uint64(state.content_group[request])), np.uint64(index))
    elif state.content_session[request] >= 0:
        return mix(mix(np.uint64(4), np.uint64(state.content_session[request])), np.uint64(index))
    return mix(mix(np.uint64(3), np.uint64(request)), np.uint64(index))


@compiled
def find_block(keys: Any, blocks: Any, key: Any) -> int:
    """Block of a hash, or -1."""
    mask = np.uint64(keys.size - 1)
    place = key & mask
    while keys[place] != np.uint64(0):
        if keys[place] == key:
            return np.int64(blocks[place])
        place = (place + np.uint64(1)) & mask
    return np.int64(-1)


@compiled
def insert_hash(keys: Any, blocks: Any, key: Any, block: int) -> bool:
    """Enter a hash; False if it is there already."""
    mask = np.uint64(keys.size - 1)
    place = key & mask
    while keys[place] != np.uint64(0):
        if keys[place] == key:
            return False
        place = (place + np.uint64(1)) & mask
    keys[place] = key
    blocks[place] = block
    return True


@compiled
def delete_hash(keys: Any, blocks: Any, key: Any) -> None:
    """Remove a hash that is present; later entries of its run move back."""
    mask = np.uint64(keys.size - 1)
    one = np.uint64(1)
    hole = key & mask
    while keys[hole] != key:
        hole = (hole + one) & mask
    place = hole
    while True:
        place = (place + one) & mask
        if keys[place] == np.uint64(0):
            break
        home = keys[place] & mask
        if ((place - home) & mask) >= ((place - hole) & mask):
            keys[hole] = keys[place]
            blocks[hole] = blocks[place]
            hole = place
    keys[hole] = np.uint64(0)


@compiled
def take_from_free_queue(state: Any, e: int, block: int) -> None:
    """A block that had no owner leaves the free queue."""
    after, before = state.block_next[e], state.block_previous[e]
    after[before[block]] = after[block]
    before[after[block]] = before[block]
    state.num_free_blocks[e] -= 1


@compiled
def grow(state: Any, e: int, slot: int, num_needed: int) -> None:
    """Give a sequence fresh blocks until it owns `num_needed`. The caller has checked that they are free."""
    sentinel = state.block_next.shape[1] - 1
    after = state.block_next[e]
    table = state.block_table[e, slot]
    for index in range(state.slot_blocks[e, slot], num_needed):
        block = after[sentinel]
        take_from_free_queue(state, e, block)
        if state.block_hash[e, block] != np.uint64(0):
            delete_hash(state.hash_keys[e], state.hash_blocks[e], state.block_hash[e, block])
            state.block_hash[e, block] = np.uint64(0)
        state.block_owners[e, block] = 1
        table[index] = block
    state.slot_blocks[e, slot] = max(state.slot_blocks[e, slot], num_needed)


@compiled
def seal(state: Any, e: int, slot: int, old_computed: int, new_computed: int) -> None:
    """Blocks that became full between two token counts get their chained hash, unless it is known already.

    A block whose twin is cached already stays without a hash; the chain goes on through it.
    """
    if state.prefix_caching[e] == 0:
        return
    block_tokens = state.block_tokens[e]
    row = np.int64(state.slot_row[e, slot])
    table = state.block_table[e, slot]
    key = state.slot_hash[e, slot]
    for index in range(old_computed // block_tokens, new_computed // block_tokens):
        key = mix(key, block_content(state, row, index, block_tokens))
        if insert_hash(state.hash_keys[e], state.hash_blocks[e], key, table[index]):
            state.block_hash[e, table[index]] = key
    state.slot_hash[e, slot] = key


@compiled
def release(state: Any, e: int, slot: int) -> None:
    """A sequence gives up its blocks, last one first, and its slot."""
    sentinel = state.block_next.shape[1] - 1
    after, before = state.block_next[e], state.block_previous[e]
    table = state.block_table[e, slot]
    for index in range(state.slot_blocks[e, slot] - 1, -1, -1):
        block = table[index]
        state.block_owners[e, block] -= 1
        if state.block_owners[e, block] == 0:
            last = before[sentinel]
            after[last] = block
            before[block] = last
            after[block] = sentinel
            before[sentinel] = block
            state.num_free_blocks[e] += 1
    state.slot_blocks[e, slot] = 0
    state.row_slot[state.slot_row[e, slot]] = -1
    state.slot_row[e, slot] = -1
    state.free_slots[e, state.num_free_slots[e]] = slot
    state.num_free_slots[e] += 1


@compiled
def take_slot(state: Any, e: int, row: int) -> int:
    """A slot for a visit; the caller has checked that one is free."""
    state.num_free_slots[e] -= 1
    slot = np.int64(state.free_slots[e, state.num_free_slots[e]])
    state.slot_row[e, slot] = row
    state.slot_blocks[e, slot] = 0
    state.slot_computed[e, slot] = 0
    state.slot_scheduled[e, slot] = 0
    state.slot_lane[e, slot] = -1
    state.slot_hash[e, slot] = np.uint64(ROOT_HASH)
    state.row_slot[row] = slot
    return slot


@compiled
def count_hits(state: Any, e: int, row: int, num_tokens: int) -> Any:
    """(blocks found in the prefix cache, those of them that have no owner).

    The chain is followed to the first miss and capped so that at least one token is computed.
    """
    hits = np.int64(0)
    unowned = np.int64(0)
    if state.prefix_caching[e] == 0:
        return hits, unowned
    block_tokens = state.block_tokens[e]
    key = np.uint64(ROOT_HASH)
    for index in range((num_tokens - 1) // block_tokens):
        key = mix(key, block_content(state, row, index, block_tokens))
        block = find_block(state.hash_keys[e], state.hash_blocks[e], key)
        if block < 0:
            break
        hits += 1
        if state.block_owners[e, block] == 0:
            unowned += 1
    return hits, unowned


@compiled
def take_hits(state: Any, e: int, slot: int, num_hits: int) -> None:
    """The sequence shares the first `num_hits` cached blocks of its prompt."""
    block_tokens = state.block_tokens[e]
    row = np.int64(state.slot_row[e, slot])
    key = np.uint64(ROOT_HASH)
    table = state.block_table[e, slot]
    for index in range(num_hits):
        key = mix(key, block_content(state, row, index, block_tokens))
        block = find_block(state.hash_keys[e], state.hash_blocks[e], key)
        if state.block_owners[e, block] == 0:
            take_from_free_queue(state, e, block)
        state.block_owners[e, block] += 1
        table[index] = block
    state.slot_blocks[e, slot] = num_hits
    state.slot_hash[e, slot] = key
