"""Policies, orders of the line, victims and reserves of the oracle, each pinned by a case derived by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reference_cases import begin, build, push, scheduled
from tests.reference_counts import num_bins
from tests.reference_records import Arrival, BatchCounts, Seconds


class TestPrefillFirst:
    def test_a_step_holds_prompts_or_decodes(self) -> None:
        # Row 0 decodes from step 1 on; the prompt of row 1 (there at 1.0) goes first and has the step for itself.
        engine = build(policy="prefill_first")
        records = engine.run([Arrival(0.0, 0, 5, 3), Arrival(1.0, 1, 6, 1)])
        assert scheduled(records) == [((0, 5),), ((1, 6),), ((0, 1),), ((0, 1),)]

    def test_prompts_are_whole(self) -> None:
        # Budget 16: 10 + 10 do not fit one step. Row 2 (20) goes alone.
        engine = build(policy="prefill_first")
        records = engine.run([Arrival(0.0, 0, 10, 1), Arrival(0.0, 1, 10, 1), Arrival(0.0, 2, 20, 1)])
        assert scheduled(records) == [((0, 10),), ((1, 10),), ((2, 20),)]

    def test_with_chunks_an_unfinished_prompt_comes_before_decodes_and_before_new_prompts(self) -> None:
        # Row 1 has 16 of 20 in step 1; in step 2 its last 4, then row 2 the 12 that are left of the budget, in step 3
        # row 2 its last 2. Only then row 0 decodes.
        engine = build(policy="prefill_first", chunk_prompts=True)
        records = engine.run([Arrival(0.0, 0, 5, 2), Arrival(1.0, 1, 20, 1), Arrival(1.0, 2, 14, 1)])
        assert scheduled(records) == [((0, 5),), ((1, 16),), ((1, 4), (2, 12)), ((2, 2),), ((0, 1),)]

    def test_prompt_without_blocks_lets_decodes_run(self) -> None:
        # 3 blocks, 2 of them row 0's: row 1 (2 blocks) waits, the step is one of decodes.
        engine = build(policy="prefill_first", num_blocks=3)
        records = engine.run([Arrival(0.0, 0, 5, 3), Arrival(0.0, 1, 6, 1)])
        assert scheduled(records) == [((0, 5),), ((0, 1),), ((0, 1),), ((1, 6),)]


class TestDecodeFirst:
    def test_decodes_have_their_tokens_before_a_prompt_ahead_of_them(self) -> None:
        # Budget 6, threshold 3, 2 drafts (never accepted): step 0 takes 3 of row 0 and the prompts of rows 1 and 2. In
        # step 1 each decode wants 3. In running order row 0 and row 1 have them; with decodes first rows 1 and 2.
        arrivals = [Arrival(0.0, 0, 9, 1), Arrival(0.0, 1, 1, 4), Arrival(0.0, 2, 1, 4)]
        options: dict[str, Any] = {
            "max_num_batched_tokens": 6, "long_prefill_token_threshold": 3, "draft_tokens": 2,
            "acceptance_values": (0.0,),
        }  # fmt: skip
        records = build(policy="chunked_prefill", **options).run(arrivals)
        assert scheduled(records)[:2] == [((0, 3), (1, 1), (2, 1)), ((0, 3), (1, 3))]
        records = build(policy="decode_first", **options).run(arrivals)
        assert scheduled(records)[:2] == [((0, 3), (1, 1), (2, 1)), ((1, 3), (2, 3))]

    def test_otherwise_as_chunked_prefill(self) -> None:
        arrivals = [Arrival(0.0, 0, 5, 4), Arrival(0.0, 1, 30, 1), Arrival(0.0, 2, 6, 2)]
        assert build(policy="decode_first").run(arrivals) == build().run(arrivals)


class TestMixedPool:
    def test_prompts_first_but_never_twice_past_the_same_decode(self) -> None:
        # Step 1: row 1 takes the whole budget, the decode of row 0 is left out. Step 2: it comes first, and row 2 (16)
        # no longer fits. Step 3: prompts first again.
        engine = build(policy="mixed_pool")
        records = engine.run([Arrival(0.0, 0, 4, 4), Arrival(1.0, 1, 16, 1), Arrival(1.0, 2, 16, 1)])
        assert scheduled(records) == [((0, 4),), ((1, 16),), ((0, 1),), ((2, 16),), ((0, 1),), ((0, 1),)]

    def test_prompts_and_decodes_share_a_step(self) -> None:
        # 10 of row 1 and 1 of row 0; the order is that of the running list.
        engine = build(policy="mixed_pool")
        records = engine.run([Arrival(0.0, 0, 4, 2), Arrival(1.0, 1, 10, 1)])
        assert scheduled(records) == [((0, 4),), ((0, 1), (1, 10))]
        assert records[1].counts == BatchCounts(11, 2, 1, 1, 5, 5, 1, 55, 10)


class TestStatic:
    def test_batch_stays_together_until_its_last_has_ended(self) -> None:
        # Rows 0 and 1 are a batch, 3 and 5 in. Row 0 has its only token at 1, its batch ends with row 1 at 3; only then
        # row 2 comes in. Blocks: 1 + 2 of 100, those of row 0 kept.
        engine = build(policy="static", max_num_seqs=2)
        records = engine.run([Arrival(0.0, 0, 3, 1), Arrival(0.0, 1, 5, 3), Arrival(0.0, 2, 4, 1)])
        assert scheduled(records) == [((0, 3), (1, 5)), ((1, 1),), ((1, 1),), ((2, 4),)]
        assert [record.free_blocks for record in records] == [97, 97, 97, 99]
        assert engine.finish_s == {0: 3.0, 1: 3.0, 2: 4.0}
        assert engine.first_token_s == {0: 1.0, 1: 1.0, 2: 4.0}

    def test_counts_are_padded(self) -> None:
        # Prompts of 3 and 5: 2 rows of 5, 15 pairs each. Then 2 sequences at the longest context, the ended one
        # included.
        engine = build(policy="static")
        records = engine.run([Arrival(0.0, 0, 3, 1), Arrival(0.0, 1, 5, 3)])
        assert [record.counts for record in records] == [
            BatchCounts(10, 2, 0, 0, 0, 0, 2, 30, 10),
            BatchCounts(2, 2, 2, 2, 12, 6, 0, 0, 0),
            BatchCounts(2, 2, 2, 2, 14, 7, 0, 0, 0),
        ]

    def test_longest_context_may_be_that_of_an_ended_sequence(self) -> None:
        engine = build(policy="static", max_num_batched_tokens=32)
        records = engine.run([Arrival(0.0, 0, 10, 1), Arrival(0.0, 1, 2, 2)])
        assert records[1].counts == BatchCounts(2, 2, 2, 2, 22, 11, 0, 0, 0)

    def test_batch_of_which_only_ended_ones_are_left_closes(self) -> None:
        # 4 blocks: row 0 (7 in, 1 out) has ended and keeps 2, row 1 (7 in) the other 2. At its ninth token row 1 lacks
        # a block and goes; the batch is over at once, row 0's blocks come free, and row 1 starts anew in the same step.
        engine = build(policy="static", num_blocks=4, prefix_caching=False)
        records = engine.run([Arrival(0.0, 0, 7, 1), Arrival(0.0, 1, 7, 4)])
        assert scheduled(records) == [((0, 7), (1, 7)), ((1, 1),), ((1, 9),), ((1, 1),)]
        assert records[2].preempted == (1,)
        assert engine.finish_s == {0: 2.0, 1: 4.0}


class TestPaddingOfPrompts:
    def test_padded_prompts_count_as_long_as_the_longest(self) -> None:
        # 5, 8: 2 x 8 = 16 of 16. One more of 1 would make 24.
        engine = build(policy="padded")
        records = engine.run([Arrival(0.0, row, num_prompt, 1) for row, num_prompt in enumerate([5, 8, 1])])
        assert scheduled(records) == [((0, 5), (1, 8)), ((2, 1),)]
        assert records[0].counts == BatchCounts(16, 2, 0, 0, 0, 0, 2, 72, 16)

    def test_packed_prompts_fill_rows_of_the_longest(self) -> None:
        # 8, 5, 3 in two rows of 8; one more of 1 would open a third.
        engine = build(policy="prepacked")
        records = engine.run([Arrival(0.0, row, num_prompt, 1) for row, num_prompt in enumerate([8, 5, 3, 1])])
        assert scheduled(records) == [((0, 8), (1, 5), (2, 3)), ((3, 1),)]
        assert records[0].counts == BatchCounts(16, 3, 0, 0, 0, 0, 2, 72, 16)

    def test_prompt_longer_than_the_budget_goes_alone(self) -> None:
        for policy in ["padded", "prepacked"]:
            engine = build(policy=policy)
            records = engine.run([Arrival(0.0, 0, 20, 1), Arrival(0.0, 1, 1, 1)])
            assert scheduled(records) == [((0, 20),), ((1, 1),)]

    def test_cached_history_is_read_by_every_row_of_a_padded_batch(self) -> None:
        # Row 1: 8 of 13 cached, 5 new. Row 2: 3 new. Two rows of 5: 2 x 15 pairs, and 5 x 8 on the history.
        def content(row: int, index: int) -> int:
            return index if row < 2 else -row

        engine = build(policy="padded", content=content)
        records = engine.run([Arrival(0.0, 0, 9, 1), Arrival(1.0, 1, 13, 1), Arrival(1.0, 2, 3, 1)])
        assert records[1].counts == BatchCounts(10, 2, 0, 0, 0, 0, 2, 70, 18)

    @pytest.mark.parametrize(("sizes", "number"), [([8], 1), ([8, 4, 4], 2), ([8, 5, 4, 3, 4], 3), ([5, 5, 3, 3], 2)])
    def test_first_fit_decreasing(self, sizes: list[int], number: int) -> None:
        assert num_bins(sizes, max(sizes) if sizes != [5, 5, 3, 3] else 8) == number


class TestLayeredPrefill:
    def test_prompts_run_through_one_group_of_layers_a_step_beside_decodes(self) -> None:
        # 12 tokens by 4: 3 groups. Row 0 decodes meanwhile; row 1 has its first token at the end of the third step.
        engine = build(policy="layered_prefill", layer_group_tokens=4)
        records = engine.run([Arrival(0.0, 0, 4, 5), Arrival(1.0, 1, 12, 1)])
        assert scheduled(records) == [((0, 4),), *[((0, 1), (1, 12))] * 3, ((0, 1),)]
        assert [record.num_layer_groups for record in records] == [1, 3, 3, 3, 1]
        assert engine.first_token_s == {0: 1.0, 1: 4.0}
        # Logits of the prompt in the last step only.
        assert [record.counts.num_sampled for record in records] == [1, 1, 1, 2, 1]
        assert records[1].counts == BatchCounts(13, 1, 1, 1, 5, 5, 1, 78, 12)
        assert records[1].decode_counts == BatchCounts(1, 1, 1, 1, 5, 5, 0, 0, 0)

    def test_step_costs_its_share_of_the_layers(self) -> None:
        # On the device 0.5 s and 0.25 s a token, no tokens no time; 1 s of the host. Step 0: the wave of row 0 alone, 1
        # group. Step 1: 1 decode and 12 of row 1, in 3 groups: (0.5 + 13 x 0.25) / 3 + (0.5 + 0.25) x 2 / 3 = 1.75.
        # Row 0 ends with it; steps 2 and 3: (0.5 + 12 x 0.25) / 3.
        def cost(counts: BatchCounts) -> Seconds:
            return Seconds((0.5 + 0.25 * counts.num_tokens) if counts.num_tokens else 0.0, host_s=1.0)

        engine = build(policy="layered_prefill", layer_group_tokens=4, cost=cost)
        records = engine.run([Arrival(0.0, 0, 4, 2), Arrival(2.0, 1, 12, 1)])
        durations_s = [record.end_s - record.start_s for record in records]
        assert durations_s == pytest.approx([2.5, 2.75, 1.0 + 3.5 / 3, 1.0 + 3.5 / 3])

    def test_no_more_groups_than_layers(self) -> None:
        engine = build(policy="layered_prefill", layer_group_tokens=4, num_layers=2)
        assert scheduled(engine.run([Arrival(0.0, 0, 12, 1)])) == [((0, 12),)] * 2

    def test_next_wave_waits_for_the_end_of_the_last(self) -> None:
        # Rows 0 and 1 (16 tokens: 2 groups of 8) are one wave; row 2 came a moment too late.
        engine = build(policy="layered_prefill", layer_group_tokens=8)
        records = engine.run([Arrival(0.0, 0, 10, 1), Arrival(0.0, 1, 6, 1), Arrival(0.5, 2, 2, 1)])
        assert scheduled(records) == [((0, 10), (1, 6)), ((0, 10), (1, 6)), ((2, 2),)]

    def test_wave_whose_members_are_all_preempted_is_over(self) -> None:
        # 4 blocks. Row 0 (7 in, 4 groups) has 2 and its first token at 4.0; the wave of row 1 (8 in, 4 groups) takes
        # the other 2. In the next step row 0 needs a third for its ninth token: row 1 goes, its wave has had one group.
        # When row 0 has ended row 1 starts over.
        engine = build(policy="layered_prefill", layer_group_tokens=2, num_blocks=4, prefix_caching=False)
        records = engine.run([Arrival(0.0, 0, 7, 4), Arrival(4.0, 1, 8, 1)])
        assert scheduled(records) == [*[((0, 7),)] * 4, ((0, 1), (1, 8)), ((0, 1),), ((0, 1),), *[((1, 8),)] * 4]
        assert records[5].preempted == (1,)


class TestOrdersOfTheLine:
    def test_shortest_job_first(self) -> None:
        # 5 + 1, 2 + 9, 3 + 2.
        engine = build(queue_order="sjf")
        records = engine.run([Arrival(0.0, 0, 5, 1), Arrival(0.0, 1, 2, 9), Arrival(0.0, 2, 3, 2)])
        assert records[0].admitted == ((2, 0), (0, 0), (1, 0))

    def test_least_slack_first(self) -> None:
        engine = build(queue_order="least_slack")
        deadlines_s = [3.0, 1.5, 2.0, 1.5]
        arrivals = [Arrival(0.0, row, 2, 1, deadline_s=each) for row, each in enumerate(deadlines_s)]
        assert [row for row, _ in engine.run(arrivals)[0].admitted] == [1, 3, 2, 0]

    def test_fair_share_takes_the_client_served_least(self) -> None:
        # Client 0 asks four times, client 1 once, later. One at a time: row 0 makes 4 + 2 x 1 = 6 for client 0. Client
        # 1 starts with what client 0 had when it came (at 0.5: 4), so it is next.
        engine = build(queue_order="fair_share", max_num_seqs=1)
        arrivals = [Arrival(0.0, row, 4, 1, client=0) for row in range(4)] + [Arrival(0.5, 4, 4, 1, client=1)]
        records = engine.run(arrivals)
        assert [record.admitted[0][0] for record in records] == [0, 4, 1, 2, 3]

    def test_fair_share_owes_nothing_for_time_away(self) -> None:
        # Client 0 has been served 4 + 2 and 4 + 2 when client 1 comes at 1.5 (counter 10: 6 and the prompt of row 1):
        # it starts level. Row 3 brings it to 16, so the two take turns from there on.
        engine = build(queue_order="fair_share", max_num_seqs=1)
        arrivals = [Arrival(0.0, row, 4, 1, client=0) for row in range(3)]
        arrivals += [Arrival(1.5, row, 4, 1, client=1) for row in range(3, 6)]
        records = engine.run(arrivals)
        # At 2: client 0 has 12, client 1 has 10. At 3: 12 and 16. At 4: 18 and 16.
        assert [record.admitted[0][0] for record in records] == [0, 1, 3, 2, 4, 5]

    def test_output_counts_twice(self) -> None:
        # Client 0: 2 + 2 x 4 = 10 at 4.0; client 1: 9 + 2 x 1. So client 0 is next.
        engine = build(queue_order="fair_share", max_num_seqs=2)
        arrivals = [
            Arrival(0.0, 0, 2, 4, client=0), Arrival(0.0, 1, 9, 1, client=1),
            Arrival(0.5, 2, 4, 1, client=1), Arrival(0.5, 3, 4, 1, client=0),
        ]  # fmt: skip
        # At 1.0 row 1 has ended: client 0 has 2 + 2, client 1 has 9 + 2.
        records = engine.run(arrivals)
        assert [record.admitted for record in records[:3]] == [((0, 0), (1, 0)), ((3, 0),), ((2, 0),)]

    def test_longest_prefix_first(self) -> None:
        # Cached: 2 blocks of "index". Row 1 shares none, row 2 one, row 3 both, row 4 both.
        def content(row: int, index: int) -> int:
            shared = {0: 9, 2: 1, 3: 9, 4: 9}.get(row, 0)
            return index if index < shared else 100 * row + index

        engine = build(queue_order="longest_prefix", content=content, max_num_batched_tokens=64)
        records = engine.run([Arrival(0.0, 0, 8, 1)] + [Arrival(1.0, row, 9, 1) for row in (1, 2, 3, 4)])
        assert records[1].admitted == ((3, 8), (4, 8), (2, 4), (1, 0))

    def test_longest_prefix_looks_at_the_first_128(self) -> None:
        def content(row: int, index: int) -> int:
            return index if row in (0, 129) else 100 * row + index

        engine = build(queue_order="longest_prefix", content=content, max_num_seqs=1)
        assert push(engine, 0, 8, 1)
        begin(engine, 0.0)
        for row in range(1, 130):
            push(engine, row, 9, 1)
        engine.end_step()
        assert begin(engine, 1.0).admitted == ((1, 0),)
        engine.end_step()
        assert begin(engine, 2.0).admitted == ((129, 8),)


class TestVictims:
    def test_fewest_generated_tokens(self) -> None:
        # 6 blocks. Row 1 came a step later than rows 0 and 2: it has one output less when row 0 needs a block.
        for victim, evicted in [("last", 2), ("fewest_generated", 1)]:
            engine = build(num_blocks=6, victim=victim)
            push(engine, 0, 6, 9)
            begin(engine, 0.0)
            engine.end_step()
            push(engine, 1, 6, 9)
            push(engine, 2, 5, 9)
            begin(engine, 1.0)
            engine.end_step()
            # At 2.0: row 0 has 7 tokens computed, then 8 at 3.0; its ninth at 3.0 wants a third block.
            engine.scheduler.running[2].num_generated += 1
            engine.scheduler.running[2].num_computed += 1
            begin(engine, 2.0)
            engine.end_step()
            assert begin(engine, 3.0).preempted == (evicted,)

    def test_of_equals_the_longest_prompt_goes_then_the_last(self) -> None:
        # 7 in: 2 blocks each. All have 2 outputs at 2.0, when each needs a third block.
        for prompts, evicted in [([7, 6, 6], 1), ([5, 7, 6], 1), ([7, 7, 7], 2), ([5, 6, 6], 2)]:
            engine = build(num_blocks=6, max_num_batched_tokens=32, victim="fewest_generated")
            for row, num_prompt in enumerate(prompts):
                push(engine, row, num_prompt, 9)
            preempted: tuple[int, ...] = ()
            time_s = 0.0
            while not preempted:
                preempted = begin(engine, time_s).preempted
                engine.end_step()
                time_s += 1.0
            # Row 0 of [7, 6, 6] is the longest, and the one in need: it goes itself only if it is the victim.
            assert preempted[0] == (0 if prompts == [7, 6, 6] else evicted)


class TestOutputReserve:
    def test_whole_reserve_holds_a_sequence_back_that_would_be_evicted(self) -> None:
        # As TestPreemption.test_tail_is_evicted: 4 blocks, at most 4 each. Row 0 owns 2 and will own 4, row 1 needs 2
        # now and 2 later: 2 <= 2 - 4 fails until row 0 has ended.
        engine = build(num_blocks=4, output_reserve_frac=1.0)
        records = engine.run([Arrival(0.0, 0, 7, 10), Arrival(0.0, 1, 7, 10)])
        assert all(not record.preempted for record in records)
        assert scheduled(records) == [((0, 7),), *[((0, 1),)] * 9, ((1, 7),), *[((1, 1),)] * 9]

    def test_reserve_is_rounded_down(self) -> None:
        # Row 0 will take 2 more, row 1 (4 in, 5 out: 8 stored) 1 more: half of 3 is 1.5, so 1. Blocks free: 8 - 2 = 6.
        # Row 1 takes 1: 1 <= 6 - 1. In a pool of 4: 1 <= 2 - 1. In one of 3 (row 0: 7 in, 6 out, 12 stored): 1 > 1 - 1.
        arrivals = [Arrival(0.0, 0, 7, 6), Arrival(0.0, 1, 4, 5)]
        assert build(num_blocks=4, output_reserve_frac=0.5).run(arrivals)[0].admitted == ((0, 0), (1, 0))
        assert build(num_blocks=3, output_reserve_frac=0.5).run(arrivals)[0].admitted == ((0, 0),)

    def test_lone_sequence_is_admitted_whatever_the_reserve(self) -> None:
        engine = build(num_blocks=4, output_reserve_frac=1.0)
        assert engine.run([Arrival(0.0, 0, 4, 13)])[0].admitted == ((0, 0),)
