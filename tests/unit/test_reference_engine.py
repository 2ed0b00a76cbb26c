"""The scheduling rules, each pinned by a small case whose decisions are derived by hand.

Unless a case says otherwise: blocks of 4 tokens, every step takes 1 s, and no two requests share content.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.reference_cases import begin, build, own_content, push, same_content, scheduled
from tests.reference_records import Arrival, BatchCounts, Seconds


class TestLifeOfOneRequest:
    def test_prompt_in_one_step_then_one_token_a_step(self) -> None:
        # 5 prompt tokens: 2 blocks. The prompt's step gives token 1, two decodes give tokens 2 and 3. The last token
        # is never computed: 5 + 3 - 1 = 7 tokens are stored, still 2 blocks.
        engine = build()
        records = engine.run([Arrival(0.25, row=0, num_prompt=5, num_output=3)])
        assert scheduled(records) == [((0, 5),), ((0, 1),), ((0, 1),)]
        assert [record.free_blocks for record in records] == [98, 98, 98]
        assert engine.first_token_s == {0: 1.25}
        assert engine.finish_s == {0: 3.25}
        assert len(engine.cache.pool.free) == 100

    def test_one_token_ends_with_the_prompt(self) -> None:
        engine = build()
        assert scheduled(engine.run([Arrival(0.0, 0, 5, 1)])) == [((0, 5),)]
        assert engine.first_token_s == engine.finish_s == {0: 1.0}

    def test_no_output_ends_with_the_prompt_and_has_no_first_token(self) -> None:
        # Chunks of 16 and 4; only the second step brings the prompt to its end.
        engine = build()
        records = engine.run([Arrival(0.0, 0, 20, 0)])
        assert scheduled(records) == [((0, 16),), ((0, 4),)]
        assert [record.counts.num_sampled for record in records] == [0, 1]
        assert engine.first_token_s == {}
        assert engine.finish_s == {0: 2.0}

    def test_arrival_at_a_step_boundary_is_seen_by_the_step_that_starts_there(self) -> None:
        engine = build()
        records = engine.run([Arrival(0.0, 0, 4, 3), Arrival(1.0, 1, 4, 1), Arrival(1.5, 2, 4, 1)])
        assert scheduled(records) == [((0, 4),), ((0, 1), (1, 4)), ((0, 1), (2, 4))]

    def test_idle_engine_starts_at_the_arrival(self) -> None:
        engine = build()
        records = engine.run([Arrival(0.0, 0, 4, 1), Arrival(7.5, 1, 4, 1)])
        assert [(record.start_s, record.end_s) for record in records] == [(0.0, 1.0), (7.5, 8.5)]


class TestBudget:
    def test_prompt_is_cut_into_what_the_budget_leaves(self) -> None:
        assert scheduled(build().run([Arrival(0.0, 0, 40, 1)])) == [((0, 16),), ((0, 16),), ((0, 8),)]

    def test_one_budget_in_running_order_for_decodes_and_prompts_alike(self) -> None:
        # Step 0: 5 of row 0, the other 11 to row 1. Step 1: 1 decode, 15 to row 1 (26 of 30 done); row 2 gets nothing.
        # Step 2: 1 decode, the last 4 of row 1, then row 2 may have the remaining 11, and needs 6.
        # Step 3: rows 0 and 2 decode; row 1 asked for one token only and is gone, the order of the others is kept.
        engine = build()
        records = engine.run([Arrival(0.0, 0, 5, 4), Arrival(0.0, 1, 30, 1), Arrival(0.0, 2, 6, 2)])
        assert scheduled(records) == [
            ((0, 5), (1, 11)),
            ((0, 1), (1, 15)),
            ((0, 1), (1, 4), (2, 6)),
            ((0, 1), (2, 1)),
        ]

    def test_running_sequence_without_budget_is_skipped_and_stays(self) -> None:
        # Budget 2: three decodes cannot run together. Step 0 and 1 bring in rows 0, 1 (prompts of 1), then row 2 is
        # held out until row 0 has finished: budget 0 admits nobody.
        engine = build(max_num_batched_tokens=2)
        records = engine.run([Arrival(0.0, 0, 1, 2), Arrival(0.0, 1, 1, 3), Arrival(0.0, 2, 3, 1)])
        assert scheduled(records) == [((0, 1), (1, 1)), ((0, 1), (1, 1)), ((1, 1), (2, 1)), ((2, 2),)]

    def test_later_running_sequence_is_skipped_when_a_chunk_before_it_takes_all(self) -> None:
        # Budget 4, threshold 3. Step 0: 3 of row 0, 1 of row 1 (its whole prompt). Step 1: 3 of row 0, 1 decode.
        # Row 2 with a higher threshold share cannot enter. The chunk never exceeds 3, so row 1 always has its token.
        engine = build(max_num_batched_tokens=4, long_prefill_token_threshold=3)
        records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(0.0, 1, 1, 3), Arrival(0.0, 2, 2, 1)])
        assert scheduled(records) == [
            ((0, 3), (1, 1)),
            ((0, 3), (1, 1)),
            ((0, 2), (1, 1), (2, 1)),
            ((2, 1),),
        ]
        # Without the threshold row 0 takes the whole budget twice, and row 1 cannot enter before it is through.
        engine = build(max_num_batched_tokens=4)
        records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(0.0, 1, 1, 3), Arrival(0.0, 2, 2, 1)])
        assert scheduled(records) == [((0, 4),), ((0, 4),), ((1, 1), (2, 2)), ((1, 1),), ((1, 1),)]

    def test_threshold_caps_a_prompt_and_leaves_budget_to_the_next(self) -> None:
        # 25 = 10 + 10 + 5; row 1 has 6 of the budget in step 0, 6 in step 1, and needs 12 in all.
        engine = build(long_prefill_token_threshold=10)
        records = engine.run([Arrival(0.0, 0, 25, 1), Arrival(0.0, 1, 12, 1)])
        assert scheduled(records) == [((0, 10), (1, 6)), ((0, 10), (1, 6)), ((0, 5),)]

    def test_max_num_seqs_bounds_the_running_list(self) -> None:
        engine = build(max_num_seqs=2)
        records = engine.run([Arrival(0.0, row, 2, 2) for row in range(3)])
        assert scheduled(records) == [((0, 2), (1, 2)), ((0, 1), (1, 1)), ((2, 2),), ((2, 1),)]


class TestPreemption:
    def test_tail_is_evicted_and_recomputes_prompt_and_outputs(self) -> None:
        # 4 blocks; rows of 7 in, 10 out, at most 16 tokens = 4 blocks each. Steps 0, 1: 2 blocks each, 8 tokens each.
        # Step 2: row 0 needs a third block, none is free: the tail, row 1, goes (2 blocks back, row 0 takes one).
        # Steps 3-9: row 1 has 9 known tokens: 3 blocks, its first may be a hit, but 2 more are not there. Row 0 grows
        # into the last block at token 13 (step 6) and ends with step 9, its tenth token.
        # Step 10: row 1 computes 7 + 2 tokens at once, as prefill, which gives its third token; 7 decodes remain.
        engine = build(num_blocks=4)
        records = engine.run([Arrival(0.0, 0, 7, 10), Arrival(0.0, 1, 7, 10)])
        assert scheduled(records) == [
            ((0, 7), (1, 7)),
            ((0, 1), (1, 1)),
            *[((0, 1),)] * 8,
            ((1, 9),),
            *[((1, 1),)] * 7,
        ]
        assert [record.preempted for record in records] == [(), (), (1,), *[()] * 15]
        assert [record.free_blocks for record in records[:11]] == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1]
        assert records[10].admitted == ((1, 0),)
        assert records[10].counts == BatchCounts(9, 1, 0, 0, 0, 0, 1, 45, 9)
        assert engine.first_token_s == {0: 1.0, 1: 1.0}
        assert engine.finish_s == {0: 10.0, 1: 18.0}

    def test_resume_finds_the_blocks_that_survived(self) -> None:
        # 5 blocks. Step 2: row 0 takes the last free block for its ninth token; row 1 is its own victim, both its full
        # blocks keep their hashes. Row 0 ends with step 2. Step 3: row 1 knows 7 + 2 tokens, hits 8, computes 1: it has
        # exactly one token to schedule and outputs already, which is a decode.
        engine = build(num_blocks=5)
        records = engine.run([Arrival(0.0, 0, 7, 3), Arrival(0.0, 1, 7, 4)])
        assert scheduled(records) == [((0, 7), (1, 7)), ((0, 1), (1, 1)), ((0, 1),), ((1, 1),), ((1, 1),)]
        assert [record.preempted for record in records] == [(), (), (1,), (), ()]
        assert records[3].admitted == ((1, 8),)
        assert records[3].counts == BatchCounts(1, 1, 1, 1, 9, 9, 0, 0, 0)
        assert records[3].free_blocks == 2
        assert engine.first_token_s[1] == 1.0

    def test_nobody_is_admitted_in_a_step_that_evicted(self) -> None:
        # As above with a third request of one block at t = 2. Row 1 freed two blocks, so it would fit at once; but it
        # waits for step 3, and behind row 1, which went to the front.
        engine = build(num_blocks=5)
        records = engine.run([Arrival(0.0, 0, 7, 3), Arrival(0.0, 1, 7, 4), Arrival(2.0, 2, 3, 1)])
        assert records[2].preempted == (1,)
        assert records[2].free_blocks == 2
        assert records[2].admitted == ()
        assert records[3].admitted == ((1, 8), (2, 0))

    def test_several_victims_return_in_their_old_order(self) -> None:
        # 6 blocks, three rows of 7 in: 2 blocks each. Step 2: row 0 needs one: row 2 goes (2 blocks). Row 1 takes the
        # other. Free 0. Row 0 and 1 have 3 blocks each, up to 12 tokens (steps 2-5). Step 6: row 0 needs a fourth: row
        # 1 goes, in front of row 2.
        engine = build(num_blocks=6)
        for row in range(3):
            push(engine, row, 7, 12)
        for step in range(7):
            record = begin(engine, float(step))
            assert record.preempted == {2: (2,), 6: (1,)}.get(step, ())
            engine.end_step()
        assert [sequence.row for sequence in engine.scheduler.running] == [0]
        assert [sequence.row for sequence in engine.scheduler.line.line] == [1, 2]

    def test_admission_never_evicts(self) -> None:
        # Row 0 owns 2 of 3 blocks for good (7 in, 2 out); row 1 wants 2 and has to wait, whatever its priority.
        engine = build(num_blocks=3, queue_order="priority")
        records = engine.run([Arrival(0.0, 0, 7, 2, priority=9), Arrival(0.0, 1, 7, 1, priority=10)])
        assert scheduled(records) == [((0, 7),), ((0, 1),), ((1, 7),)]
        engine = build(num_blocks=3, queue_order="priority")
        records = engine.run([Arrival(0.0, 0, 7, 2, priority=9), Arrival(0.5, 1, 7, 1, priority=0)])
        assert scheduled(records) == [((0, 7),), ((0, 1),), ((1, 7),)]
        assert all(record.preempted == () for record in records)


class TestPriority:
    def test_waiting_list_is_ordered_by_priority_then_arrival(self) -> None:
        engine = build(queue_order="priority")
        records = engine.run([Arrival(0.0, row, 2, 1, priority) for row, priority in enumerate([2, 1, 0, 1])])
        assert scheduled(records) == [((2, 2), (1, 2), (3, 2), (0, 2))]
        engine = build(queue_order="fcfs")
        records = engine.run([Arrival(0.0, row, 2, 1, priority) for row, priority in enumerate([2, 1, 0, 1])])
        assert scheduled(records) == [((0, 2), (1, 2), (2, 2), (3, 2))]

    def test_budget_of_a_victim_that_was_already_scheduled_is_refunded(self) -> None:
        # 5 blocks, budget 4, at most 2 prompt tokens each. Row 0 (least urgent) runs first; rows 1, 2 join in step 1.
        #   tokens computed after step    0    1    2    3    4
        #   row 0 (2 in)                  2    3    4    5    6     2 blocks from step 3
        #   row 1 (12 in), 2 a step            2    4    6    8     2 blocks from step 3
        #   row 2 (12 in), the other 1         1    2    3    4     1 block
        # Step 5: row 0 takes 1 of the budget. Row 1 needs a third block, none is free: row 0 goes, its 1 comes back.
        # Row 1 takes 2, so row 2 has 2 left instead of 1, and a free block for them.
        engine = build(
            num_blocks=5,
            max_num_batched_tokens=4,
            long_prefill_token_threshold=2,
            full_sequence_gate=False,
            queue_order="priority",
        )
        records = engine.run([Arrival(0.0, 0, 2, 8, 9), Arrival(0.5, 1, 12, 1, 0), Arrival(0.5, 2, 12, 1, 1)])
        assert scheduled(records)[:6] == [
            ((0, 2),),
            *[((0, 1), (1, 2), (2, 1))] * 4,
            ((1, 2), (2, 2)),
        ]
        assert records[5].preempted == (0,)
        assert records[5].free_blocks == 0

    def test_sequence_that_is_its_own_victim_stops_the_phase(self) -> None:
        # 3 blocks; running order 0 (urgent), 1 (least urgent), 2. Before step 2 they have 3, 4 and 2 tokens in a block
        # each. Step 2: row 0 decodes; row 1 needs a second block, is itself the victim, and the phase stops: row 2,
        # which needs no block, does not run, and row 1 has given its block back.
        engine = build(num_blocks=3, queue_order="priority")
        arrivals = [Arrival(0.0, 0, 2, 3, 0), Arrival(0.0, 1, 3, 4, 9), Arrival(0.5, 2, 2, 3, 1)]
        records = engine.run(arrivals)
        assert scheduled(records)[:3] == [((0, 2), (1, 3)), ((0, 1), (1, 1), (2, 2)), ((0, 1),)]
        assert records[2].preempted == (1,)
        assert records[2].free_blocks == 1

    def test_schedule_starts_over_when_the_first_evicts_itself(self) -> None:
        # 2 blocks. Row 0 (less urgent) is first in the running list. Step 2: it needs a second block and is itself the
        # victim. Nobody would run, so scheduling starts over: row 1 has its token; row 0 (5 known tokens, 1 block
        # cached, which is not free for anything else) lacks a block. Step 3: row 1 has ended, row 0 resumes.
        engine = build(num_blocks=2, queue_order="priority")
        records = engine.run([Arrival(0.0, 0, 3, 5, priority=9), Arrival(0.5, 1, 3, 2, priority=0)])
        assert scheduled(records)[:4] == [((0, 3),), ((0, 1), (1, 3)), ((1, 1),), ((0, 1),)]
        assert records[2].preempted == (0,)
        assert records[3].admitted == ((0, 4),)

    def test_of_equal_priorities_the_later_arrival_is_evicted(self) -> None:
        # Row 1 is more urgent and was admitted first; rows 0 and 2 are equal, so row 2 goes although row 0 is the tail
        # of nothing: running order is 1, 0, 2 and 3 blocks of 2 tokens are full after one step.
        engine = build(num_blocks=3, block_tokens=2, queue_order="priority")
        records = engine.run(
            [Arrival(0.0, 0, 2, 3, priority=1), Arrival(0.0, 1, 2, 2, priority=0), Arrival(0.0, 2, 2, 2, priority=1)]
        )
        # Step 1: row 1 needs a second block: row 2 goes, row 1 takes its block. Row 0 needs one: it is now the least
        # urgent, evicts itself. Step 2: row 1 has ended; row 0 comes back before row 2.
        assert scheduled(records)[:2] == [((1, 2), (0, 2), (2, 2)), ((1, 1),)]
        assert records[1].preempted == (2, 0)
        assert records[2].admitted[0][0] == 0

    def test_evicted_sequence_returns_to_its_place_among_the_waiting(self) -> None:
        # Same as above with a more urgent request waiting: it comes before the evicted ones.
        engine = build(num_blocks=3, block_tokens=2, queue_order="priority")
        push(engine, 0, 2, 3, priority=1)
        push(engine, 1, 2, 2, priority=0)
        push(engine, 2, 2, 2, priority=1)
        begin(engine, 0.0)
        push(engine, 3, 2, 1, priority=0)
        engine.end_step()
        assert begin(engine, 1.0).preempted == (2, 0)
        assert [sequence.row for sequence in engine.scheduler.line.line] == [3, 0, 2]


class TestAdmission:
    def test_gate_asks_for_the_whole_sequence(self) -> None:
        # 5 blocks. Row 0 has 2, row 1 wants 8 tokens now (2 blocks) of 20 (5 blocks); 3 are free.
        arrivals = [Arrival(0.0, 0, 8, 2), Arrival(0.0, 1, 20, 1)]
        assert build(num_blocks=5).run(arrivals)[0].admitted == ((0, 0),)
        assert build(num_blocks=5, full_sequence_gate=False).run(arrivals)[0].admitted == ((0, 0), (1, 0))

    def test_gate_of_a_chunk_counts_cached_and_new_tokens_together(self) -> None:
        # Row 0 has 9 tokens in 3 blocks when row 1 comes. Row 1: 8 of 17 cached, 9 new, all in one chunk: 5 blocks, 2
        # of them hits, so 3 more. Not there in a pool of 5, there in a pool of 6.
        arrivals = [Arrival(0.0, 0, 8, 4), Arrival(1.0, 1, 17, 1)]
        for num_blocks, admitted in [(5, ()), (6, ((1, 8),))]:
            engine = build(num_blocks=num_blocks, content=same_content, full_sequence_gate=False)
            assert engine.run(arrivals)[1].admitted == admitted

    def test_gate_counts_generated_tokens_of_a_resumed_sequence(self) -> None:
        # Row 1 (7 in) is evicted with 2 outputs: 9 known tokens, 3 blocks. Row 0 keeps 3 of 5 blocks, then 2 are free:
        # too few with 1 hit lying in them, though the bare prompt of 7 would fit.
        engine = build(num_blocks=5, prefix_caching=False)
        records = engine.run([Arrival(0.0, 0, 7, 5), Arrival(0.0, 1, 7, 4)])
        assert records[2].preempted == (1,)
        assert scheduled(records)[3:6] == [((0, 1),), ((0, 1),), ((1, 9),)]

    def test_head_of_line_blocks_those_behind_it(self) -> None:
        # Row 1 does not fit, row 2 would: it waits behind row 1.
        engine = build(num_blocks=5)
        records = engine.run([Arrival(0.0, 0, 8, 2), Arrival(0.0, 1, 20, 1), Arrival(0.0, 2, 3, 1)])
        assert [record.admitted for record in records[:3]] == [((0, 0),), (), ((1, 0),)]

    def test_watermark_keeps_blocks_free_when_admitting(self) -> None:
        # floor(0.25 x 10) = 2 blocks. Row 0: 4 blocks, 6 free. Row 1: 5 <= 6 without, 5 > 6 - 2 with the watermark.
        arrivals = [Arrival(0.0, 0, 16, 2), Arrival(0.0, 1, 20, 1)]
        options: dict[str, Any] = {"num_blocks": 10, "max_num_batched_tokens": 64}
        assert build(**options).run(arrivals)[0].admitted == ((0, 0), (1, 0))
        assert build(**options, watermark_frac=0.25).run(arrivals)[0].admitted == ((0, 0),)
        # 4 blocks do fit: 4 <= 6 - 2.
        arrivals[1] = Arrival(0.0, 1, 16, 1)
        assert build(**options, watermark_frac=0.25).run(arrivals)[0].admitted == ((0, 0), (1, 0))

    def test_watermark_is_rounded_down(self) -> None:
        # floor(0.19 x 10) = 1: 5 <= 6 - 1.
        engine = build(num_blocks=10, max_num_batched_tokens=64, watermark_frac=0.19)
        assert engine.run([Arrival(0.0, 0, 16, 2), Arrival(0.0, 1, 20, 1)])[0].admitted == ((0, 0), (1, 0))

    def test_watermark_does_not_hold_up_an_empty_engine_nor_a_running_sequence(self) -> None:
        # 9 of 10 blocks at once although 2 are to be kept, and the tenth for token 37.
        engine = build(num_blocks=10, max_num_batched_tokens=64, watermark_frac=0.25)
        records = engine.run([Arrival(0.0, 0, 36, 3)])
        assert [record.free_blocks for record in records] == [1, 0, 0]

    def test_request_larger_than_the_pool_is_refused(self) -> None:
        # 2 blocks of 4: 5 in and 4 out store 8 tokens, one more output 9. Without output the prompt is stored whole.
        engine = build(num_blocks=2)
        assert push(engine, 0, 5, 4)
        assert not push(engine, 1, 5, 5)
        assert push(engine, 2, 8, 0)
        assert not push(engine, 3, 9, 0)
        assert engine.rejected == [1, 3]
        assert [sequence.row for sequence in engine.scheduler.line.line] == [0, 2]

    def test_empty_prompt_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="visit 7 has an empty prompt"):
            push(build(), 7, 0, 1)


class TestPrefixCache:
    def test_hit_leaves_at_least_one_token_to_compute(self) -> None:
        # 8 cached tokens. An equal prompt of 8 may use (8 - 1) // 4 = 1 block; one of 9 may use both.
        for num_prompt, num_hit in [(8, 4), (9, 8)]:
            engine = build(content=same_content)
            records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(1.0, 1, num_prompt, 1)])
            assert records[1].admitted == ((1, num_hit),)
            assert records[1].scheduled == ((1, num_prompt - num_hit),)

    def test_blocks_are_sealed_when_scheduled_or_when_the_step_ends(self) -> None:
        # Rows 0 and 1 are equal and start together: row 1 hits what row 0 is about to compute if blocks are sealed when
        # they are scheduled, as vLLM does. Row 2 comes a step later and hits in any case.
        arrivals = [Arrival(0.0, 0, 9, 1), Arrival(0.0, 1, 9, 1), Arrival(1.0, 2, 9, 1)]
        for insert_at, num_hit in [("schedule", 8), ("step_end", 0)]:
            engine = build(content=same_content, max_num_batched_tokens=32, insert_at=insert_at)
            records = engine.run(arrivals)
            assert [record.admitted for record in records] == [((0, 0), (1, num_hit)), ((2, 8),)]

    def test_look_up_stops_at_the_first_miss(self) -> None:
        # Row 1 differs in block 1 only: block 2 has the same content under another parent.
        def content(row: int, index: int) -> int:
            return -1 if (row, index) == (1, 1) else index

        engine = build(content=content)
        records = engine.run([Arrival(0.0, 0, 12, 1), Arrival(1.0, 1, 13, 1)])
        assert records[1].admitted == ((1, 4),)

    def test_equal_content_under_another_parent_is_another_block(self) -> None:
        # Cached: [0, 1] of row 0 and [-1, -2] of row 1. Row 2 asks for [-1, 1]: both contents are cached, but not so.
        def content(row: int, index: int) -> int:
            return {(1, 0): -1, (1, 1): -2, (2, 0): -1}.get((row, index), index)

        engine = build(content=content)
        records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(0.0, 1, 8, 1), Arrival(1.0, 2, 9, 1)])
        assert records[1].admitted == ((2, 4),)

    def test_cached_block_behind_an_evicted_one_is_not_found(self) -> None:
        # 5 blocks. Rows 0 (4 in) and 1 (9 in) begin alike and run in one step: pool block 0 carries the hash of the
        # first block, 2 that of the second; the free queue is then 4, 0, 3, 2, 1. Row 2 (8 in, of its own) reuses 4 and
        # 0: the first link of the chain is gone, the second is still cached. Row 3 begins like row 1 and finds nothing.
        def content(row: int, index: int) -> int:
            return own_content(row, index) if row == 2 else index

        engine = build(num_blocks=5, content=content, insert_at="step_end")
        arrivals = [Arrival(0.0, 0, 4, 1), Arrival(0.0, 1, 9, 1), Arrival(1.0, 2, 8, 1), Arrival(2.0, 3, 9, 1)]
        records = engine.run(arrivals)
        assert [record.admitted for record in records] == [((0, 0), (1, 0)), ((2, 0),), ((3, 0),)]

    def test_shared_blocks_are_stored_once(self) -> None:
        # Row 0 keeps running with 9 tokens in 3 blocks; row 1 shares 2 of them and adds 1.
        engine = build(content=same_content)
        records = engine.run([Arrival(0.0, 0, 9, 3), Arrival(1.0, 1, 9, 1)])
        assert [record.free_blocks for record in records[:2]] == [97, 96]

    def test_second_copy_stays_without_hash_but_its_successors_are_found(self) -> None:
        # Rows 0 (4 in) and 1 (9 in) compute the same first block in one step; block 0 of the pool carries the hash, the
        # copy in block 1 none. The second block of row 1, block 2 of the pool, is chained to the content, not to
        # the copy: row 2 hits pool blocks 0 and 2.
        engine = build(content=same_content, insert_at="step_end")
        push(engine, 0, 4, 1)
        push(engine, 1, 9, 1)
        begin(engine, 0.0)
        engine.end_step()
        assert [block.block_hash is not None for block in engine.cache.pool.blocks[:4]] == [True, False, True, False]
        push(engine, 2, 13, 2)
        assert begin(engine, 1.0).admitted == ((2, 8),)
        assert [block and block.block_id for block in engine.scheduler.running[0].blocks[:2]] == [0, 2]

    def test_generated_tokens_are_cached_too(self) -> None:
        # 6 in, 3 out: 8 tokens are stored, the second block half prompt, half output. The next turn begins with them.
        engine = build(content=same_content)
        records = engine.run([Arrival(0.0, 0, 6, 3), Arrival(3.0, 1, 12, 1)])
        assert records[3].admitted == ((1, 8),)

    def test_caching_can_be_switched_off(self) -> None:
        engine = build(content=same_content, prefix_caching=False)
        records = engine.run([Arrival(0.0, 0, 9, 1), Arrival(1.0, 1, 9, 1)])
        assert records[1].admitted == ((1, 0),)

    def test_last_blocks_of_the_longest_idle_sequence_are_evicted_first(self) -> None:
        # 6 blocks. Row 0 fills 0, 1 and row 1 fills 2, 3, both gone after step 0: the free queue is 4, 5 (never used),
        # 1, 0 (row 0, last block first), 3, 2 (row 1). Row 2 takes three: 4, 5, 1. So row 0's second block is lost, its
        # first and both of row 1 are found.
        def content(row: int, index: int) -> int:
            return own_content({3: 0, 4: 1}.get(row, row), index)

        engine = build(num_blocks=6, content=content, max_num_batched_tokens=64)
        push(engine, 0, 8, 1)
        push(engine, 1, 8, 1)
        begin(engine, 0.0)
        assert engine.end_step() == [0, 1]
        assert [block.block_id for block in engine.cache.pool.free] == [4, 5, 1, 0, 3, 2]
        push(engine, 2, 12, 1)
        begin(engine, 1.0)
        engine.end_step()
        assert [block.block_id for block in engine.cache.pool.free] == [0, 3, 2, 1, 5, 4]
        push(engine, 3, 9, 1)
        push(engine, 4, 9, 1)
        assert begin(engine, 2.0).admitted == ((3, 4), (4, 0))
        # Row 3 took block 0 by its hit, then 3 and 2 from the head: row 1's blocks are gone before row 4 is looked up.
        assert [block and block.block_id for block in engine.scheduler.running[0].blocks] == [0, 3, 2]

    def test_hit_takes_a_block_out_of_the_free_queue(self) -> None:
        # 4 blocks, free queue 2, 3, 1, 0 after row 0. Row 1 shares 1 and 0 and adds 2, 3: the pool is used to the last.
        engine = build(num_blocks=4, content=same_content)
        records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(1.0, 1, 16, 1)])
        assert records[1].admitted == ((1, 8),)
        assert records[1].free_blocks == 0

    def test_hits_in_the_free_queue_count_against_free_capacity(self) -> None:
        # The same with row 2 (3 in, 2 out: 1 block) admitted before row 1: 3 blocks are free, 2 of them are row 1's
        # hits. It needs 2 more and there is 1.
        def content(row: int, index: int) -> int:
            return own_content(row, index) if row == 2 else index

        engine = build(num_blocks=4, content=content)
        records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(1.0, 2, 3, 2), Arrival(1.0, 1, 16, 1)])
        assert [record.admitted for record in records] == [((0, 0),), ((2, 0),), (), ((1, 8),)]


class TestContinuous:
    def test_prompts_are_computed_whole_beside_decodes(self) -> None:
        # Budget 16. Step 0: 10, then 6 are left and row 1 wants 10. Step 1: 1 decode + 10.
        engine = build(policy="continuous")
        records = engine.run([Arrival(0.0, 0, 10, 3), Arrival(0.0, 1, 10, 1)])
        assert scheduled(records) == [((0, 10),), ((0, 1), (1, 10)), ((0, 1),)]

    def test_several_prompts_share_a_step_up_to_the_budget(self) -> None:
        engine = build(policy="continuous")
        records = engine.run([Arrival(0.0, row, num_prompt, 1) for row, num_prompt in enumerate([5, 11, 1])])
        assert scheduled(records) == [((0, 5), (1, 11)), ((2, 1),)]

    def test_prompt_longer_than_the_budget_is_the_only_prompt_of_its_step(self) -> None:
        # Row 1 (20 > 16) waits while row 0's prompt is in the step, then runs beside its decode; row 2 waits behind it.
        engine = build(policy="continuous")
        records = engine.run([Arrival(0.0, 0, 3, 3), Arrival(0.0, 1, 20, 1), Arrival(0.0, 2, 2, 1)])
        assert scheduled(records) == [((0, 3),), ((0, 1), (1, 20)), ((0, 1), (2, 2))]

    def test_prompt_that_fits_an_empty_step_waits_for_one(self) -> None:
        # Row 1 wants exactly 16: it may not run beside the decode of row 0, only after it.
        engine = build(policy="continuous")
        records = engine.run([Arrival(0.0, 0, 3, 3), Arrival(0.0, 1, 16, 1)])
        assert scheduled(records) == [((0, 3),), ((0, 1),), ((0, 1),), ((1, 16),)]

    def test_cached_tokens_do_not_count(self) -> None:
        # 20 tokens, 8 of them cached: the other 12 fit beside 4 of row 2.
        def content(row: int, index: int) -> int:
            return own_content(row, index) if row == 2 else index

        engine = build(policy="continuous", content=content)
        records = engine.run([Arrival(0.0, 0, 8, 1), Arrival(1.0, 2, 4, 1), Arrival(1.0, 1, 20, 1)])
        assert scheduled(records) == [((0, 8),), ((2, 4), (1, 12))]

    def test_threshold_does_not_split_prompts(self) -> None:
        engine = build(policy="continuous", long_prefill_token_threshold=4)
        assert scheduled(engine.run([Arrival(0.0, 0, 10, 1)])) == [((0, 10),)]

    def test_resumed_sequence_is_computed_whole(self) -> None:
        # Evicted in step 2 with 9 known tokens (see TestPreemption), resumed when row 0 has ended. Budget 8: longer
        # than any step, so it goes alone.
        engine = build(num_blocks=4, policy="continuous", max_num_batched_tokens=8)
        records = engine.run([Arrival(0.0, 0, 4, 10), Arrival(0.0, 1, 4, 10)])
        assert scheduled(records)[0] == ((0, 4), (1, 4))
        evicted_in = next(index for index, record in enumerate(records) if record.preempted)
        resumed_in = next(index for index, record in enumerate(records) if index > evicted_in and record.admitted)
        # Tokens 5 to 8 are computed in steps 1 to 4; step 5 lacks a block for the ninth. Row 1 has 5 outputs by then.
        assert evicted_in == 5
        assert records[resumed_in].scheduled == ((1, 9),)


class TestBatchCounts:
    def test_counts_by_hand(self) -> None:
        # Step 0: row 0 computes 5 (pairs 1+2+3+4+5 = 15), row 1 the first 11 of 40 (pairs 66); only row 0 gets a token.
        # Step 1: row 0 decodes over 6 tokens; row 1 computes 15 over 11 (15 x 11 + 120 = 285 pairs), context 26.
        # Step 2: row 0 decodes over 7; row 1 computes its last 14 over 26 (364 + 105 = 469), context 40.
        # Step 3: both decode, over 8 and 41.
        seen: list[BatchCounts] = []

        def cost(counts: BatchCounts) -> Seconds:
            seen.append(counts)
            return Seconds(0.5)

        engine = build(cost=cost)
        records = engine.run([Arrival(0.0, 0, 5, 5), Arrival(0.0, 1, 40, 2)])
        assert [record.counts for record in records[:4]] == [
            BatchCounts(16, 1, 0, 0, 0, 0, 2, 81, 16),
            BatchCounts(16, 1, 1, 1, 6, 6, 1, 285, 26),
            BatchCounts(15, 2, 1, 1, 7, 7, 1, 469, 40),
            BatchCounts(2, 2, 2, 2, 49, 41, 0, 0, 0),
        ]
        assert seen[1] == records[1].counts

    def test_prompt_of_one_token_is_prefill(self) -> None:
        assert build().run([Arrival(0.0, 0, 1, 1)])[0].counts == BatchCounts(1, 1, 0, 0, 0, 0, 1, 1, 1)

    def test_last_single_token_of_a_chunked_prompt_is_prefill(self) -> None:
        # 17 = 16 + 1: one token to schedule, but no output yet.
        assert build().run([Arrival(0.0, 0, 17, 1)])[1].counts == BatchCounts(1, 1, 0, 0, 0, 0, 1, 17, 17)

    def test_one_token_of_a_longer_chunk_is_prefill(self) -> None:
        # Row 1 gets the last token of the budget in step 0; its other 3 follow.
        records = build().run([Arrival(0.0, 0, 15, 1), Arrival(0.0, 1, 4, 1)])
        assert records[0].counts == BatchCounts(16, 1, 0, 0, 0, 0, 2, 121, 16)


class TestLawsAreChecked:
    def test_lost_block_is_noticed(self) -> None:
        engine = build()
        push(engine, 0, 5, 3)
        engine.cache.pool.free.pop()
        with pytest.raises(AssertionError):
            begin(engine, 0.0)

    def test_lost_request_is_noticed(self) -> None:
        engine = build()
        push(engine, 0, 5, 3)
        push(engine, 1, 5, 3)
        engine.scheduler.line.line.pop()
        with pytest.raises(AssertionError):
            begin(engine, 0.0)

    def test_wrong_hash_is_noticed(self) -> None:
        engine = build()
        push(engine, 0, 5, 3)
        begin(engine, 0.0)
        engine.cache.pool.seal(engine.cache.pool.blocks[0], 99, 0)
        with pytest.raises(AssertionError):
            engine.end_step()
