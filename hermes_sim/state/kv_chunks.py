"""What one KV store holds: chunks of prompts by their chained hash, in order of use, up to a capacity in bytes.

Entries stand in doubly linked lists, one a level, least recently used first. LRU and TTL stores have one level; in an
LFU store the level is the number of uses, so that the victim is the least recent of the least used. A chain is used
from its end to its front: whatever follows a chunk is given up before it, since a chain with a gap is of no use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.state.hashes import block_content, delete_hash, find_block, insert_hash, mix

Array = npt.NDArray[Any]

LFU_LEVELS = 64
"""Uses are counted up to here."""

# Places in `numbers`.
NUM_ENTRIES = 0  # ever taken; those given up are in the list of free ones
FIRST_FREE = 1
NUM_LEVELS = 2
NUM_EVICTED = 3  # chunks given up for room
NUM_EXPIRED = 4  # given up because nobody used them for too long
NUM_CHUNKS = 5  # held now

# Places in `amounts`.
CAPACITY_BYTES = 0
USED_BYTES = 1
PEAK_BYTES = 2
TTL_S = 3  # inf: none


class Chunks(NamedTuple):
    """Arrays of one store; entries are numbered, lists of levels begin and end at `num entries + level`."""

    keys: Array
    places: Array
    entry_key: Array
    entry_kind: Array
    entry_uses: Array
    entry_used_s: Array
    after: Array
    before: Array
    chunk_bytes: Array
    """[kinds] of KV."""
    numbers: Array
    amounts: Array


def new_chunks(most: int, chunk_bytes: Array, capacity_bytes: float, ttl_s: float, *, lfu: bool) -> Chunks:
    """An empty store; `most`: chunks that the run could ever write."""
    levels = LFU_LEVELS if lfu else 1
    most = min(most, int(min(capacity_bytes // chunk_bytes.min(), 2.0**40)) if len(chunk_bytes) else 0) + 1
    size = 2
    while size < 2 * most:
        size *= 2
    lists = np.arange(most + levels, dtype=np.int32)
    numbers = np.zeros(6, np.int64)
    numbers[FIRST_FREE] = -1
    numbers[NUM_LEVELS] = levels
    return Chunks(
        keys=np.zeros(size, np.uint64),
        places=np.zeros(size, np.int32),
        entry_key=np.zeros(most, np.uint64),
        entry_kind=np.zeros(most, np.int32),
        entry_uses=np.zeros(most, np.int32),
        entry_used_s=np.zeros(most),
        after=lists.copy(),
        before=lists.copy(),
        chunk_bytes=chunk_bytes,
        numbers=numbers,
        amounts=np.array([capacity_bytes, 0.0, 0.0, ttl_s]),
    )


@compiled
def chain_keys(state: Any, row: int, chunk_tokens: int, kind: int, keys: Any) -> None:
    """Chained hashes of the first chunks of a visit's sequence, one for each place in `keys`."""
    key = mix(np.uint64(11), np.uint64(kind))
    for index in range(keys.size):
        key = mix(key, block_content(state, row, index, chunk_tokens))
        keys[index] = key


@compiled
def unlink(chunks: Any, entry: int) -> None:
    """Out of its list."""
    after, before = chunks.after, chunks.before
    after[before[entry]] = after[entry]
    before[after[entry]] = before[entry]


@compiled
def link_last(chunks: Any, entry: int) -> None:
    """Most recently used of its level."""
    level = min(np.int64(chunks.entry_uses[entry]), chunks.numbers[NUM_LEVELS]) - 1
    end = np.int64(chunks.entry_key.size) + level
    after, before = chunks.after, chunks.before
    last = before[end]
    after[last] = entry
    before[entry] = last
    after[entry] = end
    before[end] = entry


@compiled
def use(chunks: Any, entry: int, time_s: float) -> None:
    """Somebody reads it, or would have written it again."""
    unlink(chunks, entry)
    chunks.entry_uses[entry] += 1
    chunks.entry_used_s[entry] = time_s
    link_last(chunks, entry)


@compiled
def give_up(chunks: Any, entry: int) -> None:
    """The chunk is gone, its entry free."""
    unlink(chunks, entry)
    delete_hash(chunks.keys, chunks.places, chunks.entry_key[entry])
    chunks.after[entry] = chunks.numbers[FIRST_FREE]
    chunks.numbers[FIRST_FREE] = entry
    chunks.numbers[NUM_CHUNKS] -= 1
    chunks.amounts[USED_BYTES] -= chunks.chunk_bytes[chunks.entry_kind[entry]]
    if chunks.numbers[NUM_CHUNKS] == 0:
        chunks.amounts[USED_BYTES] = 0.0


@compiled
def expire(chunks: Any, time_s: float) -> None:
    """Give up what nobody has used for longer than the store keeps it."""
    if np.isinf(chunks.amounts[TTL_S]):
        return
    end = np.int64(chunks.entry_key.size)
    while True:
        entry = np.int64(chunks.after[end])
        if entry == end or time_s - chunks.entry_used_s[entry] <= chunks.amounts[TTL_S]:
            return
        give_up(chunks, entry)
        chunks.numbers[NUM_EXPIRED] += 1


@compiled
def num_in_a_row(chunks: Any, keys: Any, first: int, time_s: float) -> int:
    """Chunks from `first` on that are here, up to the first that is not."""
    expire(chunks, time_s)
    place = np.int64(first)
    while place < keys.size and find_block(chunks.keys, chunks.places, keys[place]) >= 0:
        place += 1
    return place - first


@compiled
def find_absent(chunks: Any, keys: Any, is_absent: Any, time_s: float) -> int:
    """Which chunks are not here, into `is_absent`; their number."""
    expire(chunks, time_s)
    number = 0
    for place in range(keys.size):
        is_absent[place] = find_block(chunks.keys, chunks.places, keys[place]) < 0
        if is_absent[place]:
            number += 1
    return number


@compiled
def use_chain(chunks: Any, keys: Any, first: int, last: int, time_s: float) -> None:
    """Chunks `first` to `last` - 1 are read."""
    for place in range(last - 1, first - 1, -1):
        entry = find_block(chunks.keys, chunks.places, keys[place])
        if entry >= 0:
            use(chunks, entry, time_s)


@compiled
def find_victim(chunks: Any) -> int:
    """The least recently used entry of the lowest level, -1 if there is none."""
    end = np.int64(chunks.entry_key.size)
    for level in range(chunks.numbers[NUM_LEVELS]):
        entry = np.int64(chunks.after[end + level])
        if entry != end + level:
            return entry
    return np.int64(-1)


@compiled
def forget_chunks(chunks: Any) -> None:
    """All that is here is lost."""
    entry = find_victim(chunks)
    while entry >= 0:
        give_up(chunks, entry)
        entry = find_victim(chunks)


@compiled
def insert(chunks: Any, key: Any, kind: int, time_s: float) -> None:
    """A chunk that is not here comes in; there is room for it."""
    entry = np.int64(chunks.numbers[FIRST_FREE])
    if entry >= 0:
        chunks.numbers[FIRST_FREE] = chunks.after[entry]
    else:
        entry = np.int64(chunks.numbers[NUM_ENTRIES])
        chunks.numbers[NUM_ENTRIES] += 1
    insert_hash(chunks.keys, chunks.places, key, entry)
    chunks.entry_key[entry] = key
    chunks.entry_kind[entry] = kind
    chunks.entry_uses[entry] = 1
    chunks.entry_used_s[entry] = time_s
    chunks.numbers[NUM_CHUNKS] += 1
    chunks.amounts[USED_BYTES] += chunks.chunk_bytes[kind]
    chunks.amounts[PEAK_BYTES] = max(chunks.amounts[PEAK_BYTES], chunks.amounts[USED_BYTES])
    link_last(chunks, entry)


@compiled
def write_chain(chunks: Any, keys: Any, kinds: Any, time_s: float, evicted: Any, evicted_kinds: Any) -> int:
    """Chunks that are not here come in, from the last to the first; others give way. Returns the number of those.

    Chunks that are here count as used.

    kinds: [1], or one a chunk. evicted, evicted_kinds: filled with what gives way, as far as they reach.
    """
    expire(chunks, time_s)
    number = np.int64(0)
    for place in range(keys.size - 1, -1, -1):
        known = find_block(chunks.keys, chunks.places, keys[place])
        if known >= 0:
            use(chunks, known, time_s)
            continue
        kind = np.int64(kinds[place if kinds.size > 1 else 0])
        if chunks.chunk_bytes[kind] > chunks.amounts[CAPACITY_BYTES]:
            continue
        while chunks.amounts[USED_BYTES] + chunks.chunk_bytes[kind] > chunks.amounts[CAPACITY_BYTES]:
            entry = find_victim(chunks)
            if number < evicted.size:
                evicted[number] = chunks.entry_key[entry]
                evicted_kinds[number] = chunks.entry_kind[entry]
            number += 1
            give_up(chunks, entry)
            chunks.numbers[NUM_EVICTED] += 1
        insert(chunks, keys[place], kind, time_s)
    return number
