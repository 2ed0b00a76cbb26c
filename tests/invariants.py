"""What holds in every compiled engine between any two begins or ends of steps; a violation names itself."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hermes_sim.batching.batch import PART_OF_PROMPT
from hermes_sim.state.arrays import ENDED, HAS_KV, HOLDS_KV, TOKENS, EngineArrays
from hermes_sim.state.hashes import find_block
from hermes_sim.state.queues import FAIR_SHARE
from hermes_sim.state.sequences import final_outputs

LONGEST_LINE = 100_000


def check_invariants(arrays: EngineArrays) -> None:
    """Of every token engine."""
    for e in np.flatnonzero(arrays.engine_kind == TOKENS).tolist():
        check_engine(arrays, e)


def check_engine(arrays: EngineArrays, e: int) -> None:
    """Blocks, hashes, slots, the running list, lanes, loads, swap space, clients."""
    _check_blocks(arrays, e)
    _check_hashes(arrays, e)
    _check_slots(arrays, e)
    _check_running(arrays, e)
    _check_lanes(arrays, e)
    _check_loads(arrays, e)


def waiting_rows(arrays: EngineArrays, e: int) -> list[int]:
    """The line of an engine, head first."""
    rows, row = [], int(arrays.queue_head[arrays.first_queue[e]])
    while row >= 0:
        rows.append(row)
        row = int(arrays.row_next[row])
        assert len(rows) < LONGEST_LINE, "the line has an end"
    return rows


def reserve_rows(arrays: EngineArrays, e: int) -> list[int]:
    """Those who wait for blocks that their KV can be sent to."""
    rows, row = [], int(arrays.reserve_head[e])
    while row >= 0:
        rows.append(row)
        row = int(arrays.row_next[row])
        assert len(rows) < LONGEST_LINE, "the line has an end"
    return rows


def held_slots(arrays: EngineArrays, e: int) -> list[int]:
    """Slots with a sequence in them."""
    return [int(slot) for slot in np.flatnonzero(arrays.slot_row[e] >= 0)]


def owned_blocks(arrays: EngineArrays, e: int, slot: int) -> list[int]:
    """Blocks of a sequence from its front, and its extra ones for groups of sliding layers."""
    first, number = int(arrays.slot_first[e, slot]), int(arrays.slot_blocks[e, slot])
    own = [int(block) for block in arrays.block_table[e, slot, first:number]]
    return own + [int(block) for block in arrays.window_table[e, slot, : arrays.slot_extras[e, slot]]]


def free_queue(arrays: EngineArrays, e: int) -> list[int]:
    """Blocks without an owner, first to be used first; both directions agree."""
    sentinel = arrays.block_next.shape[1] - 1
    forward, block = [], int(arrays.block_next[e, sentinel])
    while block != sentinel:
        forward.append(block)
        block = int(arrays.block_next[e, block])
        assert len(forward) <= sentinel, "the free queue has an end"
    backward, block = [], int(arrays.block_previous[e, sentinel])
    while block != sentinel:
        backward.append(block)
        block = int(arrays.block_previous[e, block])
    assert backward == forward[::-1], "the free queue is the same both ways"
    return forward


def _check_blocks(arrays: EngineArrays, e: int) -> None:
    owners = Counter(block for slot in held_slots(arrays, e) for block in owned_blocks(arrays, e, slot))
    number = int(arrays.num_blocks[e])
    assert [owners[block] for block in range(number)] == arrays.block_owners[e, :number].tolist(), "owners of blocks"
    free = free_queue(arrays, e)
    assert len(free) == arrays.num_free_blocks[e], "number of free blocks"
    assert sorted(free) == [block for block in range(number) if owners[block] == 0], "blocks owned + free = all"


def _check_hashes(arrays: EngineArrays, e: int) -> None:
    number = int(arrays.num_blocks[e])
    hashes = arrays.block_hash[e, :number]
    hashed = np.flatnonzero(hashes != 0).tolist()
    assert len(np.unique(hashes[hashed])) == len(hashed), "no content is cached twice"
    assert np.count_nonzero(arrays.hash_keys[e]) == len(hashed), "entries of the hash table"
    for block in hashed:
        assert find_block(arrays.hash_keys[e], arrays.hash_blocks[e], hashes[block]) == block, "hash finds its block"
    if arrays.radix[e]:
        children = Counter(int(parent) for parent in arrays.block_parent[e, hashed] if parent >= 0)
        assert [children[block] for block in range(number)] == arrays.block_children[e, :number].tolist(), "children"
        assert all(hashes[parent] != 0 for parent in children), "a cached block's parent is cached"
        for slot in held_slots(arrays, e):
            for index in range(int(arrays.slot_first[e, slot]), int(arrays.slot_sealed[e, slot])):
                assert hashes[arrays.block_table[e, slot, index]] != 0, "full blocks of a radix tree are in the tree"


def _check_slots(arrays: EngineArrays, e: int) -> None:
    held = held_slots(arrays, e)
    free = arrays.free_slots[e, : arrays.num_free_slots[e]].tolist()
    assert len(set(free)) == len(free), "free slots are different"
    assert not set(free) & set(held), "no slot is both free and held"
    block_tokens = int(arrays.block_tokens[e])
    quiet = arrays.num_in_flight[e] == 0 and arrays.wave_groups[e] == 0
    for slot in held:
        computed, done = int(arrays.slot_computed[e, slot]), int(arrays.slot_done[e, slot])
        assert arrays.row_slot[arrays.slot_row[e, slot]] == slot, "slot and row know each other"
        assert arrays.slot_scheduled[e, slot] == 0, "what was decided is in flight"
        assert done == computed if quiet else done <= computed, "done and computed"
        row = int(arrays.slot_row[e, slot])
        if not arrays.row_flags[row] & HAS_KV:
            assert arrays.slot_blocks[e, slot] * block_tokens >= computed, "blocks for all computed tokens"
        assert int(arrays.slot_sealed[e, slot]) <= int(arrays.slot_blocks[e, slot]), "only blocks it has are sealed"


def _check_running(arrays: EngineArrays, e: int) -> None:
    running = arrays.running[e, : arrays.num_running[e]].tolist()
    assert len(set(running)) == len(running), "nobody runs twice"
    assert len(running) <= arrays.max_num_seqs[e], "max_num_seqs"
    rows = arrays.slot_row[e, running].tolist()
    assert all(row >= 0 for row in rows), "who runs has a slot"
    assert not set(rows) & set(waiting_rows(arrays, e)), "nobody runs and waits"
    assert not (arrays.row_flags[rows] & HAS_KV).any(), "who runs has been admitted"


def _check_lanes(arrays: EngineArrays, e: int) -> None:
    lanes = [lane for lane in range(int(arrays.num_lanes[e])) if np.isfinite(arrays.lane_end_s[e, lane])]
    assert arrays.num_in_flight[e] == len(lanes), "steps in flight"
    in_flight: Counter[int] = Counter()
    pending: Counter[int] = Counter()
    for lane in lanes:
        number = int(arrays.lane_num_scheduled[e, lane])
        slots = [slot for slot in arrays.lane_slots[e, lane, :number].tolist() if slot >= 0]
        assert len(set(slots)) == len(slots), "once in a step"
        in_flight.update(slots)
        kinds = arrays.lane_slot_kind[e, lane, :number]
        pending.update(
            slot
            for slot, kind in zip(arrays.lane_slots[e, lane, :number].tolist(), kinds.tolist(), strict=True)
            if slot >= 0 and kind != PART_OF_PROMPT
        )
        assert arrays.lane_end_s[e, lane] > arrays.lane_start_s[e, lane], "a step takes time"
    for slot in held_slots(arrays, e):
        assert arrays.slot_in_flight[e, slot] == in_flight[slot], "steps in flight of a sequence"
        if arrays.async_scheduling[e]:
            assert arrays.slot_pending[e, slot] == pending[slot], "tokens to come of a sequence"
    assert set(in_flight) <= set(held_slots(arrays, e)), "who is in flight holds a slot"


def _check_loads(arrays: EngineArrays, e: int) -> None:
    waiting = waiting_rows(arrays, e)
    assert arrays.queue_length[arrays.first_queue[e]] == len(waiting), "length of the line"
    assert len(set(waiting)) == len(waiting), "once in the line"
    inside = set(waiting) | set(reserve_rows(arrays, e))
    for slot in held_slots(arrays, e):
        row = int(arrays.slot_row[e, slot])
        has_ended = arrays.row_flags[row] & ENDED or (
            arrays.row_flags[row] & HOLDS_KV and not np.isnan(arrays.row_finish_s[row])
        )
        if not has_ended:
            inside.add(row)
    left = outputs = swapped = 0
    for row in inside:
        slot, prompt = int(arrays.row_slot[row]), int(arrays.row_prompt[row])
        output = int(final_outputs(arrays, np.array([row]))[0])
        done = int(arrays.slot_done[e, slot]) if slot >= 0 else int(arrays.row_swapped[row])
        if row in reserve_rows(arrays, e):
            done = prompt + int(arrays.row_generated[row]) - 1
        left += prompt + max(output, 1) - 1 - done
        outputs += output - int(arrays.row_generated[row])
        if arrays.row_swapped[row] > 0:
            swapped += host_blocks(arrays, e, int(arrays.row_swapped[row]))
    assert arrays.load_requests[e] == len(inside), "requests inside"
    assert arrays.load_tokens[e] == left, f"tokens to compute: {arrays.load_tokens[e]}, not {left}"
    assert arrays.load_output_tokens[e] == outputs, "tokens to come"
    assert arrays.num_swapped_blocks[e] == swapped, "blocks on the host"
    assert swapped <= arrays.swap_blocks[e], "room on the host"
    if arrays.queue_order[e] == FAIR_SHARE:
        served = set(waiting) | set(arrays.slot_row[e, arrays.running[e, : arrays.num_running[e]]].tolist())
        clients = Counter(int(arrays.row_client[row]) for row in served & inside)
        expected = [clients[client] for client in range(arrays.client_inside.shape[1])]
        assert arrays.client_inside[e].tolist() == expected, "clients with anything in line or running"


def host_blocks(arrays: EngineArrays, e: int, num_tokens: int) -> int:
    """Blocks of so many tokens as far as the next one looks back."""
    block_tokens = int(arrays.block_tokens[e])
    first = 0
    if not arrays.full_layers[e]:
        first = max(0, num_tokens // block_tokens + 1 - int(arrays.window_blocks[e]))
    return -(-num_tokens // block_tokens) - first
