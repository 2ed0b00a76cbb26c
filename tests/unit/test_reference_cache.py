"""What becomes of KV in the oracle: swapped, forked, sent, slid out of a window, kept in a tree; derived by hand."""

from __future__ import annotations

from typing import Any

from tests.reference_blocks import RadixPool
from tests.reference_cases import begin, build, own_content, push, same_content, scheduled
from tests.reference_records import Arrival, BatchCounts, Seconds


class TestSwap:
    def test_victim_comes_back_with_its_tokens(self) -> None:
        # As TestPreemption.test_tail_is_evicted: row 1 goes in step 2 with 8 tokens in 2 blocks. When row 0 has ended,
        # it comes back and decodes at once.
        def cost(counts: BatchCounts) -> Seconds:
            return Seconds(1.0)

        engine = build(num_blocks=4, preemption="swap", swap_blocks=2, swap_block_s=0.25, cost=cost)
        records = engine.run([Arrival(0.0, 0, 7, 10), Arrival(0.0, 1, 7, 10)])
        assert scheduled(records) == [((0, 7), (1, 7)), ((0, 1), (1, 1)), *[((0, 1),)] * 8, *[((1, 1),)] * 8]
        assert (records[2].preempted, records[2].swapped_out) == ((1,), ((1, 2),))
        assert (records[10].admitted, records[10].swapped_in) == (((1, 8),), ((1, 2),))
        assert records[10].counts == BatchCounts(1, 1, 1, 1, 9, 9, 0, 0, 0)
        assert [record.end_s - record.start_s for record in records] == [1.0, 1.0, 1.5, *[1.0] * 7, 1.5, *[1.0] * 7]

    def test_victim_is_computed_again_when_swap_space_is_full(self) -> None:
        engine = build(num_blocks=4, preemption="swap", swap_blocks=1)
        records = engine.run([Arrival(0.0, 0, 7, 10), Arrival(0.0, 1, 7, 10)])
        assert (records[2].preempted, records[2].swapped_out) == ((1,), ())
        assert records[10].scheduled == ((1, 9),)

    def test_unfinished_prompt_is_computed_again(self) -> None:
        # 4 blocks, budget 8. Row 1 (14 in) has 1 token in step 0 and 7 in step 1; in step 2 row 0 needs a third block.
        engine = build(
            num_blocks=4, max_num_batched_tokens=8, full_sequence_gate=False, preemption="swap", swap_blocks=9
        )
        records = engine.run([Arrival(0.0, 0, 7, 4), Arrival(0.0, 1, 14, 1)])
        assert (records[2].preempted, records[2].swapped_out) == ((1,), ())

    def test_it_waits_for_blocks_for_all_its_tokens(self) -> None:
        # Row 1 comes back with 9 tokens, 3 blocks: not while row 0 has 3 of 5.
        engine = build(num_blocks=5, preemption="swap", swap_blocks=2)
        records = engine.run([Arrival(0.0, 0, 7, 5), Arrival(0.0, 1, 7, 4)])
        assert records[2].swapped_out == ((1, 2),)
        assert scheduled(records)[3:] == [((0, 1),), ((0, 1),), ((1, 1),), ((1, 1),)]


def family(row: int, index: int) -> int:
    """The first two blocks are everybody's."""
    return index if index < 2 else own_content(row, index)


def begun(row: int, index: int) -> int:
    """The first block is everybody's; the second begins alike and goes on differently."""
    return index if index < 1 else own_content(row, index)


class TestForks:
    def test_samples_share_full_blocks_and_copy_the_one_begun(self) -> None:
        # 6 in: block 0 is shared by all three, block 1 (2 tokens) is copied by rows 1 and 2 when they first run.
        engine = build(content=begun)
        records = engine.run([Arrival(0.0, 0, 6, 3, samples=((1, 3), (2, 2)))])
        assert scheduled(records) == [((0, 6),), ((0, 1), (1, 1), (2, 1)), ((0, 1), (1, 1))]
        assert records[1].admitted == ((1, 6), (2, 6))
        assert [record.num_copied_blocks for record in records] == [0, 2, 0]
        assert [record.free_blocks for record in records] == [98, 96, 97]
        assert engine.first_token_s == {0: 1.0, 1: 1.0, 2: 1.0}
        assert engine.finish_s == {0: 3.0, 1: 3.0, 2: 2.0}

    def test_whole_blocks_need_no_copy(self) -> None:
        # 8 in: both blocks are shared, each sample begins a third.
        records = build(content=family).run([Arrival(0.0, 0, 8, 3, samples=((1, 3),))])
        assert [record.num_copied_blocks for record in records] == [0, 0, 0]
        assert [record.free_blocks for record in records] == [98, 96, 96]

    def test_copies_take_time(self) -> None:
        engine = build(copy_block_s=0.5, content=begun)
        records = engine.run([Arrival(0.0, 0, 6, 2, samples=((1, 2), (2, 2)))])
        assert [record.end_s - record.start_s for record in records] == [1.0, 2.0]

    def test_sample_without_a_slot_finds_its_prompt_in_the_cache(self) -> None:
        # 2 slots: row 1 has the second, row 2 joins the line behind it without KV. In step 3 it finds 8 of 9 tokens.
        engine = build(max_num_seqs=2, content=family)
        records = engine.run([Arrival(0.0, 0, 8, 3, samples=((1, 3), (2, 2)))])
        assert scheduled(records) == [((0, 8),), ((0, 1), (1, 1)), ((0, 1), (1, 1)), ((2, 1),)]
        assert records[3].admitted == ((2, 8),)
        assert engine.first_token_s[2] == 1.0

    def test_samples_join_the_front_of_the_line(self) -> None:
        # Row 3 has waited since 0.5; max_num_seqs 3 lets both samples in before it.
        engine = build(max_num_seqs=3, content=begun)
        records = engine.run([Arrival(0.0, 0, 6, 3, samples=((1, 2), (2, 2))), Arrival(0.5, 3, 4, 1)])
        assert [record.admitted for record in records[:3]] == [((0, 0),), ((1, 6), (2, 6)), ((3, 0),)]

    def test_samples_keep_their_order_among_equals(self) -> None:
        engine = build(queue_order="priority", content=begun)
        records = engine.run([Arrival(0.0, 0, 6, 2, 1, samples=((1, 2), (2, 2))), Arrival(0.5, 3, 4, 1, priority=0)])
        assert records[1].admitted == ((3, 0), (1, 6), (2, 6))

    def test_empty_engine_whose_line_holds_all_blocks_takes_kv_from_the_last(self) -> None:
        # 2 blocks, one slot of budget: row 0 (6 in, 2 out) runs to its end beside nobody, since each sample lacks a
        # block for its copy. Then block 0 is still shared and 1 is free: row 1 copies, ends, and row 2 follows.
        engine = build(num_blocks=2, content=begun)
        records = engine.run([Arrival(0.0, 0, 6, 2, samples=((1, 2), (2, 2)))])
        assert scheduled(records) == [((0, 6),), ((0, 1),), ((1, 1),), ((2, 1),)]
        # 4 in, 4 out in blocks of 4: two visits with a sample each share 1 + 1 of 2 blocks; nobody can decode. The last
        # one in line gives its KV up, the block goes to the first.
        engine = build(num_blocks=2, max_num_seqs=4, prefix_caching=False)
        arrivals = [Arrival(0.0, row, 4, 4, samples=((row + 2, 4),)) for row in range(2)]
        engine.run(arrivals)
        assert sorted(engine.finish_s) == [0, 1, 2, 3]


class TestTransfers:
    def test_blocks_are_reserved_and_the_visit_decodes_when_its_kv_is_here(self) -> None:
        # 7 in and the first token from elsewhere: room for 8 tokens, 2 blocks, from 0 on. At 2 it is here.
        engine = build()
        arrival = Arrival(0.0, 0, 7, 3, transfer_s=2.0)
        assert engine.reserve(arrival)
        assert engine.take_granted() == [0]
        assert engine.cache.num_free == 98
        records = build().run([arrival])
        assert scheduled(records) == [((0, 1),), ((0, 1),)]
        assert records[0].admitted == ((0, 7),)
        assert records[0].start_s == 2.0
        assert records[0].counts == BatchCounts(1, 1, 1, 1, 8, 8, 0, 0, 0)

    def test_reservations_wait_in_order_for_the_end_of_a_step(self) -> None:
        # 4 blocks, row 0 has 2. Row 1 (11 in) needs 3, row 2 (3 in) 1, and waits behind row 1.
        engine = build(num_blocks=4)
        push(engine, 0, 7, 2)
        begin(engine, 0.0)
        engine.reserve(Arrival(0.5, 1, 11, 2))
        engine.reserve(Arrival(0.5, 2, 3, 2))
        engine.end_step()
        assert engine.take_granted() == []
        begin(engine, 1.0)
        assert engine.end_step() == [0]
        assert engine.take_granted() == [1, 2]

    def test_prompt_is_found_when_it_has_come(self) -> None:
        # Row 0 brings 8 tokens, sealed at 1. Row 1 finds them.
        engine = build(content=same_content)
        records = engine.run([Arrival(0.0, 0, 8, 5, transfer_s=1.0), Arrival(2.0, 1, 9, 1)])
        assert records[1].admitted == ((1, 8),)

    def test_prompts_and_decodes_do_not_mix_where_the_policy_says_so(self) -> None:
        # Row 0's KV is here at 1, in the middle of row 1's prompt. At 2 the prompt of row 2 goes before the decodes.
        engine = build(policy="prefill_first")
        arrivals = [Arrival(0.0, 0, 7, 2, transfer_s=1.0), Arrival(0.5, 1, 4, 2), Arrival(1.0, 2, 4, 1)]
        records = engine.run(arrivals)
        assert scheduled(records) == [((1, 4),), ((2, 4),), ((1, 1), (0, 1))]

    def test_kv_is_held_until_it_has_been_sent(self) -> None:
        engine = build()
        engine.push(Arrival(0.0, 0, 7, 1), holds_kv=True)
        begin(engine, 0.0)
        assert engine.end_step() == [0]
        assert engine.cache.num_free == 98
        engine.release_kv(0)
        assert engine.cache.num_free == 100

    def test_visit_with_kv_is_brought_forward_in_an_empty_engine(self) -> None:
        # 4 blocks, 2 of them row 1's. Row 0 (12 in: 3 blocks) is first in line and does not fit.
        engine = build(num_blocks=4)
        records = engine.run([Arrival(0.0, 1, 7, 2, transfer_s=0.0), Arrival(0.0, 0, 12, 1)])
        assert scheduled(records) == [((1, 1),), ((0, 12),)]
        engine = build(num_blocks=4)
        engine.reserve(Arrival(0.0, 1, 7, 2))
        push(engine, 0, 12, 1)
        engine.push(Arrival(0.0, 1, 7, 2))
        assert begin(engine, 0.0).scheduled == ((1, 1),)

    def test_those_who_hold_blocks_go_before_a_prompt_that_evicted_itself(self) -> None:
        # 4 blocks, budget 4, no gate for the whole prompt. Row 1's KV (7 in) holds 2 blocks, but the first chunk of row
        # 0 (12 in) takes the whole budget each time it is first in line. After two chunks it finds no third block and
        # goes; it must not come back before row 1, which would wait for ever.
        engine = build(num_blocks=4, max_num_batched_tokens=4, full_sequence_gate=False, prefix_caching=False)
        engine.reserve(Arrival(0.0, 1, 7, 2))
        push(engine, 0, 12, 1)
        engine.push(Arrival(0.0, 1, 7, 2))
        steps = []
        for step in range(6):
            record = begin(engine, float(step))
            steps.append(record.scheduled)
            engine.end_step()
        assert steps[:3] == [((0, 4),), ((0, 4),), ((1, 1), (0, 3))]
        assert engine.finish_s[1] == 3.0


class TestWindows:
    def test_blocks_out_of_the_window_are_given_up(self) -> None:
        # 2 blocks cover a window of 4 wherever it begins. At token 13 blocks 0 and 1 are behind it; blocks 2 and 3
        # stay.
        engine = build(window_blocks=2, all_layers_slide=True)
        records = engine.run([Arrival(0.0, 0, 12, 6)])
        assert [record.free_blocks for record in records] == [97, 98, 98, 98, 98, 98]

    def test_last_of_them_is_given_up_first_and_both_are_still_found(self) -> None:
        engine = build(num_blocks=8, window_blocks=2, all_layers_slide=True, content=same_content)
        push(engine, 0, 12, 6)
        begin(engine, 0.0)
        engine.end_step()
        begin(engine, 1.0)
        assert [block.block_id for block in engine.cache.pool.free] == [4, 5, 6, 7, 1, 0]
        # Row 1 hits 12 tokens; of these it takes what lies in the window, block 2, and none of the front.
        push(engine, 1, 14, 1)
        engine.end_step()
        assert begin(engine, 2.0).admitted == ((1, 12),)
        assert [block and block.block_id for block in engine.scheduler.running[1].blocks] == [None, None, 2, 4]

    def test_gate_asks_for_the_first_chunk_only(self) -> None:
        # 20 in, 5 blocks, in a pool of 5: a sequence of 18 with a window of 2 blocks fits beside it chunk by chunk.
        engine = build(num_blocks=5, window_blocks=2, all_layers_slide=True, max_num_batched_tokens=8)
        records = engine.run([Arrival(0.0, 0, 4, 3), Arrival(0.0, 1, 16, 1)])
        assert scheduled(records)[:3] == [((0, 4), (1, 4)), ((0, 1), (1, 7)), ((0, 1), (1, 5))]

    def test_first_blocks_of_hybrid_models_cost_more(self) -> None:
        # One full group and 2 sliding ones of 2 blocks: 3 + 3 + 1 + 1 pool blocks for 13 tokens.
        engine = build(window_blocks=2, window_groups=2)
        records = engine.run([Arrival(0.0, 0, 3, 11)])
        assert [record.free_blocks for record in records] == [97, 97, *[94] * 4, *[93] * 4, 92]

    def test_hits_save_the_full_group_only(self) -> None:
        # Row 0 leaves 2 blocks in the cache. Row 1 (9 in) shares them, and takes 1 + 2 x 2 of its own.
        engine = build(window_blocks=2, window_groups=2, content=same_content)
        records = engine.run([Arrival(0.0, 0, 9, 1), Arrival(1.0, 1, 9, 1)])
        assert records[1].admitted == ((1, 8),)
        assert records[1].free_blocks == 93

    def test_hybrid_sequence_larger_than_the_pool_is_refused(self) -> None:
        engine = build(num_blocks=7, window_blocks=2, window_groups=2)
        assert push(engine, 0, 12, 1)
        assert not push(engine, 1, 13, 1)


class TestRadix:
    def test_equal_content_is_stored_once(self) -> None:
        # Rows 0 and 1 compute the same 9 tokens in one step, 3 blocks each. At its end row 1 gives up two for row 0's.
        engine = build(
            prefix_cache="radix", insert_at="step_end", content=same_content, max_num_batched_tokens=32, num_blocks=9
        )
        push(engine, 0, 9, 2)
        push(engine, 1, 9, 2)
        assert begin(engine, 0.0).free_blocks == 3
        engine.end_step()
        assert [block and block.block_id for block in engine.scheduler.running[1].blocks] == [0, 1, 5]
        # Without hash they are the next to be reused, the last first.
        assert [block.block_id for block in engine.cache.pool.free] == [4, 3, 6, 7, 8]

    def test_blocks_without_hash_are_reused_first(self) -> None:
        # 9 in: blocks 0 and 1 are cached, 2 is not.
        engine = build(prefix_cache="radix", insert_at="step_end", num_blocks=5)
        push(engine, 0, 9, 1)
        begin(engine, 0.0)
        engine.end_step()
        assert [block.block_id for block in engine.cache.pool.free] == [2, 3, 4, 1, 0]

    def test_block_with_cached_successors_is_not_evicted(self) -> None:
        # 1 follows 0 in the tree and was freed after it.
        pool = RadixPool(2)
        parent, child = pool.allocate(), pool.allocate()
        pool.seal(parent, 11, 0)
        pool.seal(child, 12, 11)
        pool.release(parent)
        pool.release(child)
        assert pool.allocate() is child
        assert pool.allocate() is parent

    def test_same_hits_as_the_hashes_when_nothing_is_evicted(self) -> None:
        arrivals = [Arrival(float(row), row, 5 + 3 * row, 2) for row in range(6)]
        options: dict[str, Any] = {"content": same_content, "insert_at": "step_end"}
        assert [record.admitted for record in build(prefix_cache="radix", **options).run(arrivals)] == [
            record.admitted for record in build(**options).run(arrivals)
        ]
