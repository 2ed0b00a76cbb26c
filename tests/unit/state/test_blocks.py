"""KV blocks: the free queue, the hash table, chains of hashes, and what makes two blocks equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.state.arrays import EngineArrays, allocate
from hermes_sim.state.blocks import (
    count_hits,
    drop_out_of_window,
    first_in_window,
    grow,
    num_missing_blocks,
    release,
    seal,
    share_blocks,
    take_from_free_queue,
    take_hits,
    take_slot,
)
from hermes_sim.state.hashes import block_content, delete_hash, find_block, insert_hash, mix
from tests import invariants
from tests.one_engine import ONE_OF_EACH, Options, make_arrays

BLOCK_TOKENS = 4
ALL_BITS = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
OFFSET = 0x7F4A7C159E3779B9
"""Constants of `mix`: its state before the finaliser is first x GOLDEN_GAMMA + second + OFFSET."""


def engine(num_blocks: int = 6, num_rows: int = 8, num_slots: int = 8) -> EngineArrays:
    return make_arrays(
        Options(num_blocks=num_blocks, block_tokens=BLOCK_TOKENS, max_num_seqs=num_slots, max_num_batched_tokens=64),
        num_rows,
    )


def free_queue(arrays: EngineArrays) -> list[int]:
    """Blocks from the head on; both directions and the count must agree."""
    found = invariants.free_queue(arrays, 0)
    assert len(found) == arrays.num_free_blocks[0]
    return found


def table(arrays: EngineArrays, slot: int) -> list[int]:
    return [int(block) for block in arrays.block_table[0, slot, : arrays.slot_blocks[0, slot]]]


def compute(arrays: EngineArrays, row: int, num_tokens: int) -> int:
    """A sequence that shares what is cached and has computed all its tokens; returns its slot."""
    arrays.row_prompt[row] = num_tokens
    num_hits, _ = count_hits(arrays.handle, 0, row, num_tokens)
    slot = take_slot(arrays.handle, 0, row)
    take_hits(arrays.handle, 0, slot, num_hits)
    grow(arrays.handle, 0, slot, -(-num_tokens // BLOCK_TOKENS))
    seal(arrays.handle, 0, slot, num_tokens)
    return int(slot)


def share_prefix(arrays: EngineArrays, rows: list[int], num_tokens: int, group: int = 1) -> None:
    arrays.content_group[rows], arrays.content_group_tokens[rows] = group, num_tokens


class TestFreeQueue:
    def test_fresh_blocks_are_handed_out_in_order(self) -> None:
        arrays = engine()
        assert free_queue(arrays) == [0, 1, 2, 3, 4, 5]
        slot = take_slot(arrays.handle, 0, 0)
        grow(arrays.handle, 0, slot, 2)
        assert (table(arrays, slot), free_queue(arrays)) == ([0, 1], [2, 3, 4, 5])
        grow(arrays.handle, 0, slot, 3)
        assert (table(arrays, slot), free_queue(arrays)) == ([0, 1, 2], [3, 4, 5])

    def test_asking_for_less_than_is_owned_changes_nothing(self) -> None:
        arrays = engine()
        slot = take_slot(arrays.handle, 0, 0)
        grow(arrays.handle, 0, slot, 3)
        grow(arrays.handle, 0, slot, 1)
        assert (table(arrays, slot), free_queue(arrays)) == ([0, 1, 2], [3, 4, 5])

    def test_last_block_of_a_sequence_is_reused_first(self) -> None:
        # rule 11: 0, 1, 2 come back as 2, 1, 0 behind 5, so that the front of a prefix lives longest
        arrays = engine()
        slots = [take_slot(arrays.handle, 0, row) for row in range(2)]
        grow(arrays.handle, 0, slots[0], 3)
        grow(arrays.handle, 0, slots[1], 2)
        release(arrays.handle, 0, slots[0])
        assert free_queue(arrays) == [5, 2, 1, 0]
        release(arrays.handle, 0, slots[1])
        assert free_queue(arrays) == [5, 2, 1, 0, 4, 3]

    def test_any_block_can_be_taken_out(self) -> None:
        arrays = engine()
        for block, left in [(2, [0, 1, 3, 4, 5]), (0, [1, 3, 4, 5]), (5, [1, 3, 4])]:
            take_from_free_queue(arrays.handle, 0, block)
            assert free_queue(arrays) == left

    def test_the_whole_pool_can_be_used_and_comes_back(self) -> None:
        arrays = engine()
        slot = take_slot(arrays.handle, 0, 0)
        grow(arrays.handle, 0, slot, 6)
        assert free_queue(arrays) == []
        release(arrays.handle, 0, slot)
        assert free_queue(arrays) == [5, 4, 3, 2, 1, 0]

    def test_a_released_slot_is_new_again(self) -> None:
        arrays = engine(num_slots=2)
        first = compute(arrays, 0, 8)
        release(arrays.handle, 0, first)
        assert arrays.row_slot[0] == -1
        again = take_slot(arrays.handle, 0, 1)
        assert again == first
        assert arrays.slot_row[0, again] == 1
        assert (arrays.slot_computed[0, again], arrays.slot_blocks[0, again]) == (0, 0)
        assert arrays.row_slot[1] == again
        assert arrays.num_free_slots[0] == 1


class TestMix:
    def test_published_values_of_splitmix64(self) -> None:
        # first outputs for the seed 1234567; the k-th state is seed + k x gamma
        expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
        for k, value in enumerate(expected, start=1):
            assert int(mix(np.uint64(k), np.uint64((1234567 - OFFSET) & ALL_BITS))) == value

    def test_zero_which_means_empty_never_comes_out(self) -> None:
        # the finaliser maps 0 to 0; this pair gets there
        second = -(5 * GOLDEN_GAMMA + OFFSET) & ALL_BITS
        assert int(mix(np.uint64(5), np.uint64(second))) == 1

    def test_order_matters(self) -> None:
        assert mix(np.uint64(3), np.uint64(4)) != mix(np.uint64(4), np.uint64(3))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=120))
def test_hash_table_is_a_dictionary(operations: list[tuple[bool, int]]) -> None:
    """16 places, keys that collide modulo 16 (runs wrap around the end), filled up to 15."""
    keys, blocks = np.zeros(16, np.uint64), np.zeros(16, np.int32)
    model: dict[int, int] = {}
    for number, (insert, key) in enumerate(operations):
        if insert and len(model) < 15:
            assert bool(insert_hash(keys, blocks, np.uint64(key), number)) == (key not in model)
            model.setdefault(key, number)
        elif not insert and key in model:
            delete_hash(keys, blocks, np.uint64(key))
            del model[key]
        assert {key: int(find_block(keys, blocks, np.uint64(key))) for key in range(1, 41)} == {
            key: model.get(key, -1) for key in range(1, 41)
        }
        assert np.count_nonzero(keys) == len(model)


class TestPrefixCache:
    def test_a_hit_is_capped_so_that_one_token_is_computed(self) -> None:
        # 8 cached tokens: a prompt of 8 may share one block of 4, a prompt of 9 both (rule 10)
        arrays = engine()
        share_prefix(arrays, [0, 1], 100)
        release(arrays.handle, 0, compute(arrays, 0, 8))
        assert [count_hits(arrays.handle, 0, 1, num_tokens)[0] for num_tokens in (1, 4, 5, 8, 9, 16)] == [
            0, 0, 1, 1, 2, 2,
        ]  # fmt: skip

    def test_blocks_without_owner_are_counted_apart(self) -> None:
        arrays = engine()
        share_prefix(arrays, [0, 1, 2], 100)
        slot = compute(arrays, 0, 8)
        assert count_hits(arrays.handle, 0, 1, 9) == (2, 0)
        release(arrays.handle, 0, slot)
        assert count_hits(arrays.handle, 0, 1, 9) == (2, 2)

    def test_a_hit_leaves_the_free_queue_and_comes_back_with_its_last_owner(self) -> None:
        # free after row 0: 2, 3, 4, 5, 1, 0. Row 1 shares 0 and 1 and takes 2; row 2 shares them too and takes 3.
        arrays = engine()
        share_prefix(arrays, [0, 1, 2], 8)
        release(arrays.handle, 0, compute(arrays, 0, 8))
        one, two = compute(arrays, 1, 9), compute(arrays, 2, 9)
        assert (table(arrays, one), table(arrays, two)) == ([0, 1, 2], [0, 1, 3])
        assert free_queue(arrays) == [4, 5]
        assert arrays.block_owners[0].tolist() == [2, 2, 1, 1, 0, 0]
        release(arrays.handle, 0, one)
        assert free_queue(arrays) == [4, 5, 2]
        release(arrays.handle, 0, two)
        assert free_queue(arrays) == [4, 5, 2, 3, 1, 0]

    def test_the_hash_is_lost_when_the_block_is_used_again_and_not_before(self) -> None:
        # free after row 0: 2, 3, 4, 5, 1, 0; a stranger with 5 blocks takes 2, 3, 4, 5, 1: only block 0 is left
        arrays = engine()
        share_prefix(arrays, [0, 1], 100)
        release(arrays.handle, 0, compute(arrays, 0, 8))
        slot = take_slot(arrays.handle, 0, 2)
        grow(arrays.handle, 0, slot, 4)
        assert count_hits(arrays.handle, 0, 1, 9)[0] == 2
        grow(arrays.handle, 0, slot, 5)
        assert count_hits(arrays.handle, 0, 1, 9)[0] == 1
        grow(arrays.handle, 0, slot, 6)
        assert count_hits(arrays.handle, 0, 1, 9)[0] == 0
        assert np.count_nonzero(arrays.hash_keys[0]) == 0

    def test_only_full_blocks_are_sealed(self) -> None:
        arrays = engine()
        share_prefix(arrays, [0], 100)
        compute(arrays, 0, 7)
        assert (arrays.block_hash[0] != 0).tolist() == [True, False, False, False, False, False]

    def test_sealing_in_pieces_gives_the_same_chain(self) -> None:
        arrays, at_once = engine(), engine()
        slot = take_slot(arrays.handle, 0, 0)
        grow(arrays.handle, 0, slot, 3)
        for num_tokens in (3, 5, 6, 12):
            seal(arrays.handle, 0, slot, num_tokens)
        compute(at_once, 0, 12)
        np.testing.assert_array_equal(arrays.block_hash[0], at_once.block_hash[0])

    def test_a_twin_stays_without_hash_and_the_chain_goes_on_through_it(self) -> None:
        # rows 0 (4 tokens) and 1 (12) compute the same beginning side by side; only block 0 is known for it. The next
        # blocks of row 1 are chained to the content, so row 2 shares 0 (row 0's) and 2, 3 (row 1's).
        arrays = engine()
        share_prefix(arrays, [0, 1, 2], 100)
        slots = [take_slot(arrays.handle, 0, row) for row in range(2)]
        grow(arrays.handle, 0, slots[0], 1)
        grow(arrays.handle, 0, slots[1], 3)
        seal(arrays.handle, 0, slots[0], 4)
        seal(arrays.handle, 0, slots[1], 12)
        assert (arrays.block_hash[0, :4] != 0).tolist() == [True, False, True, True]
        assert table(arrays, compute(arrays, 2, 13)) == [0, 2, 3, 4]

    def test_the_chain_stops_at_the_first_miss(self) -> None:
        # the first block is evicted, the second is still known: nothing is found
        arrays = engine()
        share_prefix(arrays, [0, 1], 100)
        release(arrays.handle, 0, compute(arrays, 0, 8))
        delete_hash(arrays.hash_keys[0], arrays.hash_blocks[0], arrays.block_hash[0, 0])
        assert count_hits(arrays.handle, 0, 1, 9) == (0, 0)

    def test_switched_off_nothing_is_sealed_or_found(self) -> None:
        arrays = engine()
        arrays.prefix_caching[0] = 0
        share_prefix(arrays, [0, 1], 100)
        release(arrays.handle, 0, compute(arrays, 0, 8))
        assert not arrays.block_hash.any()
        assert count_hits(arrays.handle, 0, 1, 9) == (0, 0)


class TestWindows:
    """A window of 2 blocks."""

    def sliding(self) -> EngineArrays:
        arrays = engine(num_blocks=12)
        arrays.window_blocks[0] = 2
        return arrays

    def test_index_of_the_first_block_in_the_window(self) -> None:
        arrays = self.sliding()
        assert [first_in_window(arrays.handle, 0, n) for n in (0, 7, 8, 12, 40)] == [0, 0, 0, 0, 0]
        arrays.full_layers[0] = 0
        # the next token goes into block n // 4; it and the one before it stay
        assert [first_in_window(arrays.handle, 0, n) for n in (0, 3, 4, 7, 8, 11, 12, 40)] == [0, 0, 0, 0, 1, 1, 2, 9]

    def test_what_slid_out_is_given_up_once_hash_intact(self) -> None:
        arrays = self.sliding()
        arrays.full_layers[0] = 0
        share_prefix(arrays, [0, 1], 100)
        slot = compute(arrays, 0, 12)
        arrays.slot_computed[0, slot] = 12
        for _ in range(2):
            drop_out_of_window(arrays.handle, 0, slot)
            assert free_queue(arrays)[-2:] == [1, 0]
            assert arrays.slot_first[0, slot] == 2
        # all three are still known; row 1 looks at those from 3 + 1 - 2 on
        assert count_hits(arrays.handle, 0, 1, 13) == (3, 0)
        release(arrays.handle, 0, slot)
        assert free_queue(arrays)[-3:] == [1, 0, 2]
        assert count_hits(arrays.handle, 0, 1, 13) == (3, 1)

    def test_groups_of_sliding_layers_cost_extra_blocks(self) -> None:
        arrays = make_arrays(
            Options(
                num_blocks=12, block_tokens=BLOCK_TOKENS, max_num_seqs=4, max_num_batched_tokens=64, window_blocks=2,
                window_groups=3,
            ),
            4,
        )  # fmt: skip
        slot = take_slot(arrays.handle, 0, 0)
        assert [num_missing_blocks(arrays.handle, 0, slot, n) for n in (0, 1, 2, 3)] == [0, 4, 8, 9]
        grow(arrays.handle, 0, slot, 1)
        assert [num_missing_blocks(arrays.handle, 0, slot, n) for n in (1, 2, 3)] == [0, 4, 5]
        # own 0, extras 1 to 3; then own 4 and 5, extras 6 to 8
        grow(arrays.handle, 0, slot, 3)
        assert table(arrays, slot) == [0, 4, 5]
        assert arrays.window_table[0, slot].tolist() == [1, 2, 3, 6, 7, 8]
        release(arrays.handle, 0, slot)
        assert free_queue(arrays) == [9, 10, 11, 8, 7, 6, 3, 2, 1, 5, 4, 0]


class TestForks:
    def test_full_blocks_of_what_has_been_computed_are_shared(self) -> None:
        # the parent has 9 tokens done and 2 more under way: two full blocks
        arrays = engine()
        parent = compute(arrays, 0, 11)
        arrays.slot_computed[0, parent], arrays.slot_done[0, parent] = 11, 9
        fork = take_slot(arrays.handle, 0, 1)
        share_blocks(arrays.handle, 0, fork, parent)
        assert table(arrays, fork) == [0, 1]
        assert (arrays.slot_computed[0, fork], arrays.slot_done[0, fork]) == (9, 9)
        assert arrays.block_owners[0].tolist() == [2, 2, 1, 0, 0, 0]
        release(arrays.handle, 0, parent)
        assert free_queue(arrays) == [3, 4, 5, 2]
        release(arrays.handle, 0, fork)
        assert free_queue(arrays) == [3, 4, 5, 2, 1, 0]


class PoolModel:
    """The same pool in lists and dictionaries; a block's content is the tuple of all content up to its end."""

    def __init__(self, num_blocks: int) -> None:
        self.free = list(range(num_blocks))
        self.owners = dict.fromkeys(range(num_blocks), 0)
        self.cached: dict[tuple[Any, ...], int] = {}
        self.tables: dict[int, list[int]] = {}

    def add(self, row: int, chains: list[tuple[Any, ...]], num_blocks: int, num_tokens: int) -> bool:
        hits = []
        for chain in chains[: (num_tokens - 1) // BLOCK_TOKENS]:
            if chain not in self.cached:
                break
            hits.append(self.cached[chain])
        num_free = len(self.free) - sum(self.owners[block] == 0 for block in hits)
        if num_blocks - len(hits) > num_free:
            return False
        for block in hits:
            if self.owners[block] == 0:
                self.free.remove(block)
            self.owners[block] += 1
        for _ in range(num_blocks - len(hits)):
            block = self.free.pop(0)
            self.cached = {chain: known for chain, known in self.cached.items() if known != block}
            self.owners[block] = 1
            hits.append(block)
        self.tables[row] = hits
        for chain, block in zip(chains, hits, strict=False):
            self.cached.setdefault(chain, block)
        return True

    def remove(self, row: int) -> None:
        for block in reversed(self.tables.pop(row)):
            self.owners[block] -= 1
            if self.owners[block] == 0:
                self.free.append(block)


REQUESTS = st.tuples(st.integers(0, 2), st.sampled_from([0, 4, 7, 8, 100]), st.integers(1, 30))
"""(prefix group, its tokens, tokens in all)"""


@settings(max_examples=100, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=30), st.data())
def test_pool_is_the_model(requests: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Sequences come and go in any order; blocks, owners, the free queue and what is cached agree at every step."""
    num_blocks = 10
    arrays, model = engine(num_blocks, len(requests), len(requests)), PoolModel(num_blocks)
    slots: dict[int, int] = {}
    for row, (group, group_tokens, num_tokens) in enumerate(requests):
        share_prefix(arrays, [row], group_tokens, group)
        contents = [
            ("group", group, index) if (index + 1) * BLOCK_TOKENS <= group_tokens else ("own", row, index)
            for index in range(num_tokens // BLOCK_TOKENS)
        ]
        chains = [tuple(contents[: index + 1]) for index in range(len(contents))]
        num_needed = -(-num_tokens // BLOCK_TOKENS)
        num_hits, num_unowned = count_hits(arrays.handle, 0, row, num_tokens)
        fits = num_needed - num_hits <= arrays.num_free_blocks[0] - num_unowned
        assert fits == model.add(row, chains, num_needed, num_tokens)
        if fits:
            slots[row] = compute(arrays, row, num_tokens)
        if slots and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(slots)))
            release(arrays.handle, 0, slots.pop(gone))
            model.remove(gone)
        assert free_queue(arrays) == model.free
        assert arrays.block_owners[0].tolist() == [model.owners[block] for block in range(num_blocks)]
        assert {other: table(arrays, slot) for other, slot in slots.items()} == model.tables
        assert np.flatnonzero(arrays.block_hash[0]).tolist() == sorted(model.cached.values())


def rows_of_a_trace(ids: list[list[int]], *, num_prompt: int, hash_block_tokens: int) -> EngineArrays:
    """One row per request, whose prompts a trace names by the given ids."""
    number = len(ids)
    arrays = allocate({
        **ONE_OF_EACH, "rows": number, "requests": number, "requests_and_one": number + 1,
        "hash_ids": sum(map(len, ids)),
    })  # fmt: skip
    arrays.row_request[:] = np.arange(number)
    arrays.row_prompt[:] = num_prompt
    arrays.hash_offsets[1:] = np.cumsum([len(own) for own in ids])
    arrays.hash_ids[:] = [block for own in ids for block in own]
    arrays.hash_block_tokens[0] = hash_block_tokens
    return arrays


class TestContent:
    def content(self, arrays: EngineArrays, row: int, index: int, block_tokens: int = BLOCK_TOKENS) -> int:
        return int(block_content(arrays.handle, row, index, block_tokens))

    def test_own_text_is_nobody_elses(self) -> None:
        arrays = engine()
        seen = {self.content(arrays, row, index) for row in range(4) for index in range(4)}
        assert len(seen) == 16

    def test_two_visits_of_a_request_hold_the_same(self) -> None:
        # prefill and decode are two rows of one request
        arrays = engine()
        arrays.row_request[1] = 0
        assert self.content(arrays, 0, 2) == self.content(arrays, 1, 2)

    def test_a_shared_prefix_ends_with_its_last_full_block(self) -> None:
        # 10 tokens are shared: blocks 0 and 1 whole, block 2 only half
        arrays = engine()
        share_prefix(arrays, [0, 1], 10)
        share_prefix(arrays, [2], 10, group=2)
        assert [self.content(arrays, 0, index) == self.content(arrays, 1, index) for index in range(4)] == [
            True, True, False, False,
        ]  # fmt: skip
        assert self.content(arrays, 0, 0) != self.content(arrays, 2, 0)
        assert self.content(arrays, 0, 0) != self.content(arrays, 0, 1)

    def test_turns_of_a_session_share_everything(self) -> None:
        arrays = engine()
        arrays.content_session[:3] = [5, 5, 6]
        assert [self.content(arrays, 0, i) == self.content(arrays, 1, i) for i in (0, 7)] == [True, True]
        assert self.content(arrays, 0, 0) != self.content(arrays, 2, 0)

    def test_sessions_share_their_group_first(self) -> None:
        # a system prompt of 8 tokens, then each session's own history
        arrays = engine()
        arrays.content_session[:2] = [5, 6]
        share_prefix(arrays, [0, 1], 8)
        assert [self.content(arrays, 0, i) == self.content(arrays, 1, i) for i in range(3)] == [True, True, False]

    def test_ids_of_a_trace(self) -> None:
        # ids name blocks of 512 tokens, the cache has blocks of 256: two blocks to an id. 1,000 prompt tokens: block 3
        # would end at 1,024, so it holds generated tokens too and is the request's own.
        arrays = rows_of_a_trace([[7, 9], [7, 9], [7, 8]], num_prompt=1000, hash_block_tokens=512)
        named = [[self.content(arrays, row, index, 256) for index in range(5)] for row in range(3)]
        assert [a == b for a, b in zip(named[0], named[1], strict=True)] == [True, True, True, False, False]
        assert [a == b for a, b in zip(named[0], named[2], strict=True)] == [True, True, False, False, False]
        assert len(set(named[0])) == 5

    def test_beyond_the_last_id_the_text_is_its_own(self) -> None:
        arrays = rows_of_a_trace([[7], [7]], num_prompt=1024, hash_block_tokens=512)
        assert self.content(arrays, 0, 1, 256) == self.content(arrays, 1, 1, 256)
        assert self.content(arrays, 0, 2, 256) != self.content(arrays, 1, 2, 256)

    def test_ids_of_a_trace_count_more_than_group_and_session(self) -> None:
        arrays = rows_of_a_trace([[7], [8]], num_prompt=512, hash_block_tokens=512)
        arrays.content_group[:], arrays.content_group_tokens[:], arrays.content_session[:] = 1, 512, 3
        assert self.content(arrays, 0, 0, 256) != self.content(arrays, 1, 0, 256)

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_equal_numbers_of_different_kinds_are_different(self, number: int) -> None:
        """Trace id, group, session and request of the same number never meet."""
        arrays = engine()
        arrays.content_session[0] = number
        share_prefix(arrays, [4], 100, group=number)
        trace = rows_of_a_trace([[number]], num_prompt=512, hash_block_tokens=512)
        kinds = [
            self.content(arrays, 0, 0), self.content(arrays, 4, 0), self.content(arrays, number, 0),
            self.content(trace, 0, 0),
        ]  # fmt: skip
        assert len(set(kinds)) == 4
