"""What KV blocks hold, as 64-bit hashes, and the table that finds a block by its hash.

Open addressing with backward-shift deletion; key 0 means empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled

ROOT_HASH = 7
"""Parent of the first block."""

NEVER_PRIVATE = np.int64(1) << 40


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
    history (which only ever grows), the request's own text, or a text that a visit, a sample or a branch has written
    behind one of those."""
    request = state.row_request[row]
    end = (index + 1) * block_tokens
    reads = np.int64(row)
    while reads >= 0 and state.row_text[reads] >= 0:
        if end > state.row_common[reads]:
            return mix(mix(np.uint64(5), np.uint64(state.row_text[reads])), np.uint64(index))
        reads = np.int64(state.row_text_before[reads])
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
def first_private_block(state: Any, row: int, block_tokens: int) -> int:
    """Index from which on the blocks hold the request's own text only."""
    request = state.row_request[row]
    num_ids = state.hash_offsets[request + 1] - state.hash_offsets[request]
    if num_ids > 0:
        return min(num_ids * state.hash_block_tokens[0], np.int64(state.row_prompt[row])) // block_tokens
    if state.content_session[request] >= 0:
        return NEVER_PRIVATE
    return state.content_group_tokens[request] // block_tokens


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
