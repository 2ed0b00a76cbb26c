"""Steps in flight, ranks in lockstep and drafts of the oracle, each pinned by a case derived by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.reference_cases import begin, build, push, scheduled
from tests.reference_clock import serve
from tests.reference_records import Arrival, BatchCounts, Options, Seconds, Sequence, StepRecord
from tests.reference_speculation import mix, next_num_drafts, num_accepted, uniform


def times(records: list[StepRecord]) -> list[tuple[float, float]]:
    return [(record.start_s, record.end_s) for record in records]


def host_and_device(host_s: float, device_s: float) -> Callable[[BatchCounts], Seconds]:
    return lambda counts: Seconds(device_s, host_s)


class TestAsyncScheduling:
    def test_host_time_is_hidden_behind_the_device(self) -> None:
        # Host 0.25, device 1. Step 1 is scheduled at 0.25 and follows step 0 on the device: 1.25 + 1. Step 2 has to
        # wait for a place in flight, until 1.25. One after the other they would take 3 x 1.25.
        engine = build(async_scheduling=True, cost=host_and_device(0.25, 1.0))
        records = engine.run([Arrival(0.0, 0, 4, 3)])
        assert times(records) == [(0.0, 1.25), (0.25, 2.25), (1.25, 3.25)]
        assert engine.finish_s == {0: 3.25}

    def test_host_longer_than_the_device_shows(self) -> None:
        # Host 2, device 1: a step each 2 s, the last device second at the end.
        engine = build(async_scheduling=True, cost=host_and_device(2.0, 1.0))
        assert times(engine.run([Arrival(0.0, 0, 4, 3)])) == [(0.0, 3.0), (2.0, 5.0), (4.0, 7.0)]

    def test_next_step_counts_on_the_token_of_the_last(self) -> None:
        # Step 1 decodes the first token before it is known; nothing is scheduled beyond the last output.
        engine = build(async_scheduling=True, cost=host_and_device(0.25, 1.0))
        records = engine.run([Arrival(0.0, 0, 4, 3)])
        assert scheduled(records) == [((0, 4),), ((0, 1),), ((0, 1),)]
        assert records[1].counts == BatchCounts(1, 1, 1, 1, 5, 5, 0, 0, 0)

    def test_prompt_without_output_ends(self) -> None:
        engine = build(async_scheduling=True)
        assert scheduled(engine.run([Arrival(0.0, 0, 20, 0)])) == [((0, 16),), ((0, 4),)]

    def test_victim_in_flight_loses_the_token_of_its_step(self) -> None:
        # 4 blocks, two rows of 7 in. Steps 0 and 1 give both 8 tokens in 2 blocks. Step 2 is scheduled while step 1
        # runs: row 0 needs a third block, row 1 goes. Step 1 ends without a second token for row 1.
        engine = build(num_blocks=4, async_scheduling=True, cost=host_and_device(0.25, 1.0))
        push(engine, 0, 7, 4)
        push(engine, 1, 7, 4)
        begin(engine, 0.0)
        begin(engine, 0.25)
        engine.end_step()
        assert begin(engine, 1.25).preempted == (1,)
        engine.end_step()
        victim = engine.scheduler.line.line[0]
        assert (victim.row, victim.num_generated, victim.num_pending) == (1, 1, 0)
        assert engine.scheduler.running[0].num_generated == 2

    def test_sequence_in_flight_does_not_evict_itself(self) -> None:
        # 3 blocks, 2 of them kept for row 1, whose KV comes at 10. Row 0 (3 in) lacks a block for its fifth token: it
        # waits for what is in flight and loses nothing, then goes with 2 outputs. It finds no room before row 1 (7 in,
        # 2 out) has run at 10; its fourth token was not known when it was scheduled, so its block is no hit.
        engine = build(num_blocks=3, async_scheduling=True, cost=host_and_device(0.25, 1.0))
        arrivals = [Arrival(0.0, 1, 7, 2, transfer_s=10.0), Arrival(0.0, 0, 3, 5)]
        records = engine.run(arrivals)
        assert scheduled(records) == [((0, 3),), ((0, 1),), ((1, 1),), ((0, 5),), ((0, 1),), ((0, 1),)]
        assert [record.admitted for record in records if record.admitted] == [((0, 0),), ((1, 7),), ((0, 0),)]
        assert engine.num_preemptions == 1


class TestPipeline:
    def test_chunks_of_a_prompt_overlap(self) -> None:
        # 2 stages of 0.5 s: the second chunk enters when the first has left the first stage. The decode needs its
        # token.
        engine = build(num_stages=2, stage_interval_frac=0.5)
        records = engine.run([Arrival(0.0, 0, 32, 2)])
        assert scheduled(records) == [((0, 16),), ((0, 16),), ((0, 1),)]
        assert times(records) == [(0.0, 1.0), (0.5, 1.5), (1.5, 2.5)]

    def test_steps_leave_in_the_order_in_which_they_entered(self) -> None:
        # Step 0 (16 tokens) takes 2 s. Step 1 (4 tokens, 0.5 s) enters at 1, would be through at 1.5, and its last
        # stage takes 0.25 s after step 0 has left it.
        def cost(counts: BatchCounts) -> Seconds:
            return Seconds(counts.num_tokens / 8)

        engine = build(num_stages=2, stage_interval_frac=0.5, cost=cost)
        records = engine.run([Arrival(0.0, 0, 20, 1)])
        assert times(records) == [(0.0, 2.0), (1.0, 2.25)]

    def test_each_step_in_flight_has_its_own_sequences(self) -> None:
        # Rows 0 and 1 come half a second apart and stay in lanes of their own.
        engine = build(num_stages=2, stage_interval_frac=0.5)
        records = engine.run([Arrival(0.0, 0, 4, 3), Arrival(0.5, 1, 4, 3)])
        assert scheduled(records) == [((0, 4),), ((1, 4),), ((0, 1),), ((1, 1),), ((0, 1),), ((1, 1),)]

    def test_sequence_in_flight_is_no_victim(self) -> None:
        # 3 blocks. Row 0 (7 in) has 2, row 1 (3 in) 1. At 2.0 row 0 needs a third for its ninth token; row 1, the tail,
        # is in flight: row 0 is the only one that can go.
        engine = build(num_blocks=3, num_stages=2, stage_interval_frac=0.5)
        records = engine.run([Arrival(0.0, 0, 7, 4), Arrival(0.5, 1, 3, 2)])
        assert scheduled(records)[:4] == [((0, 7),), ((1, 3),), ((0, 1),), ((1, 1),)]
        assert records[4].preempted == (0,)


class TestRanksInLockstep:
    def test_tokens_are_padded_to_the_largest_rank(self) -> None:
        def cost(counts: BatchCounts) -> Seconds:
            return Seconds(counts.num_tokens / 8)

        ranks = [build(cost=cost), build(cost=cost)]
        records = serve(ranks, [Arrival(0.0, 0, 8, 1, rank=0), Arrival(0.0, 1, 2, 2, rank=1)])
        assert scheduled(records) == [((0, 8),), ((1, 2),), (), ((1, 1),)]
        assert times(records) == [(0.0, 1.0), (0.0, 1.0), (1.0, 1.125), (1.0, 1.125)]
        # What attention reads stays each rank's own; the idle rank runs a dummy step.
        assert [record.counts for record in records] == [
            BatchCounts(8, 1, 0, 0, 0, 0, 1, 36, 8),
            BatchCounts(8, 1, 0, 0, 0, 0, 1, 3, 2),
            BatchCounts(1, 0, 0, 0, 0, 0, 0, 0, 0),
            BatchCounts(1, 1, 1, 1, 3, 3, 0, 0, 0),
        ]

    def test_arrival_waits_for_the_step_of_the_others(self) -> None:
        ranks = [build(), build()]
        records = serve(ranks, [Arrival(0.0, 0, 4, 2, rank=0), Arrival(0.5, 1, 4, 1, rank=1)])
        assert scheduled(records) == [((0, 4),), (), ((0, 1),), ((1, 4),)]

    def test_the_longest_rank_sets_the_end(self) -> None:
        def cost(counts: BatchCounts) -> Seconds:
            return Seconds(1.0 + counts.decode_context_sum / 8)

        ranks = [build(cost=cost), build(cost=cost)]
        records = serve(ranks, [Arrival(0.0, 0, 7, 2, rank=0), Arrival(0.0, 1, 3, 2, rank=1)])
        assert times(records) == [(0.0, 1.0)] * 2 + [(1.0, 3.0)] * 2


class TestDrafts:
    def test_numbers_are_those_of_splitmix64(self) -> None:
        # With this second number the finaliser sees the state after one step from 0; its first output is well known.
        assert mix(1, -0x7F4A7C159E3779B9 % 2**64) == 0xE220A8397B1DCDAF
        assert uniform(1, 2, 3, 4) == (mix(mix(1, 2), 3 * 64 + 4) >> 11) / 2**53

    def test_all_accepted(self) -> None:
        # 1 + 3 a step: 9 outputs are 1 of the prompt and 2 x 4. Contexts 5 + 3 and 9 + 3.
        engine = build(draft_tokens=3, acceptance_values=(1.0,))
        records = engine.run([Arrival(0.0, 0, 4, 9)])
        assert scheduled(records) == [((0, 4),), ((0, 4),), ((0, 4),)]
        assert [record.accepted for record in records] == [(), ((0, 3),), ((0, 3),)]
        assert records[1].counts == BatchCounts(4, 4, 1, 4, 8, 8, 0, 0, 0)
        assert records[2].counts.decode_context_sum == 12

    def test_none_accepted(self) -> None:
        # One token a step; the blocks of the drafts stay: 4 + 4 tokens are 2 blocks, 7 + 4 are 3 from token 6 on.
        engine = build(draft_tokens=3, acceptance_values=(0.0,))
        records = engine.run([Arrival(0.0, 0, 4, 4)])
        assert scheduled(records) == [((0, 4),), ((0, 4),), ((0, 4),), ((0, 4),)]
        assert [record.free_blocks for record in records] == [99, 98, 97, 97]

    def test_no_more_outputs_than_wanted(self) -> None:
        engine = build(draft_tokens=5, acceptance_values=(1.0,))
        records = engine.run([Arrival(0.0, 0, 4, 3)])
        assert scheduled(records) == [((0, 4),), ((0, 6),)]
        assert records[1].accepted == ((0, 1),)

    def test_budget_and_threshold_cut_drafts(self) -> None:
        records = build(draft_tokens=5, acceptance_values=(1.0,), max_num_batched_tokens=4).run([Arrival(0.0, 0, 4, 8)])
        assert scheduled(records) == [((0, 4),), ((0, 4),), ((0, 4),)]
        engine = build(draft_tokens=5, acceptance_values=(1.0,), long_prefill_token_threshold=4)
        assert scheduled(engine.run([Arrival(0.0, 0, 4, 8)])) == [((0, 4),), ((0, 4),), ((0, 4),)]

    def test_no_drafts_while_too_many_run(self) -> None:
        # Rows 0 and 1 run without; when row 1 has ended row 0 drafts.
        engine = build(draft_tokens=2, draft_max_seqs=1, acceptance_values=(1.0,))
        records = engine.run([Arrival(0.0, 0, 4, 6), Arrival(0.0, 1, 4, 2)])
        assert scheduled(records) == [((0, 4), (1, 4)), ((0, 1), (1, 1)), ((0, 3),), ((0, 3),)]

    def test_drafts_give_way_before_the_sequence(self) -> None:
        # 2 blocks hold 8 tokens. From 5 on the step with 3 drafts would need a third block: it runs without drafts.
        engine = build(num_blocks=2, draft_tokens=3, acceptance_values=(0.0,))
        records = engine.run([Arrival(0.0, 0, 4, 5)])
        assert scheduled(records) == [((0, 4),), ((0, 4),), ((0, 1),), ((0, 1),), ((0, 1),)]
        assert engine.num_preemptions == 0

    def test_tree_verifies_positions_of_several_candidates(self) -> None:
        # 2 positions of 3 candidates: 1 + 6 tokens, 2 accepted at most.
        engine = build(draft_tokens=2, tree_width=3, acceptance_values=(1.0,))
        records = engine.run([Arrival(0.0, 0, 4, 7)])
        assert scheduled(records) == [((0, 4),), ((0, 7),), ((0, 7),)]
        assert records[1].accepted == ((0, 2),)

    def test_one_good_candidate_of_several_is_enough(self) -> None:
        # 1 - 0.5^4 = 0.9375 a position.
        options = Options(
            num_blocks=1, block_tokens=1, max_num_seqs=1, max_num_batched_tokens=1, draft_tokens=1, tree_width=4,
            acceptance_values=(0.5,),
        )  # fmt: skip
        rows = [Sequence(row, 4, 9, num_generated=1) for row in range(4000)]
        share = sum(num_accepted(options, row, 1) for row in rows) / len(rows)
        assert share == pytest.approx(0.9375, abs=4 * (0.9375 * 0.0625 / 4000) ** 0.5)

    def test_positions_count_up_to_the_first_rejection(self) -> None:
        options = Options(
            num_blocks=1, block_tokens=1, max_num_seqs=1, max_num_batched_tokens=1, draft_tokens=3,
            acceptance="per_position", acceptance_values=(1.0, 0.0, 1.0),
        )  # fmt: skip
        assert [num_accepted(options, Sequence(7, 4, 9, num_generated=1), positions) for positions in range(4)] == [
            0, 1, 1, 1,
        ]  # fmt: skip

    def test_trace_is_cut_to_the_positions(self) -> None:
        options = Options(
            num_blocks=1, block_tokens=1, max_num_seqs=1, max_num_batched_tokens=1, draft_tokens=3,
            acceptance="trace", acceptance_values=(5.0,),
        )  # fmt: skip
        assert num_accepted(options, Sequence(7, 4, 9, num_generated=1), 3) == 3
        options = Options(
            num_blocks=1, block_tokens=1, max_num_seqs=1, max_num_batched_tokens=1, draft_tokens=3,
            acceptance="trace", acceptance_values=(0.0, 1.0, 2.0),
        )  # fmt: skip
        for generated in range(1, 9):
            assert num_accepted(options, Sequence(7, 4, 9, num_generated=generated), 3) == mix(7, generated) % 3

    def test_adaptive_length(self) -> None:
        options = Options(
            num_blocks=1, block_tokens=1, max_num_seqs=1, max_num_batched_tokens=1, draft_tokens=5,
            adaptive_drafts=True,
        )  # fmt: skip
        assert [next_num_drafts(options, *case) for case in [(5, 5, 5), (5, 4, 5), (2, 2, 2), (1, 0, 1)]] == [
            5,
            4,
            4,
            1,
        ]
        # Nothing is accepted: 3, 2, 1, 1 drafts; a preempted sequence begins with 3 again.
        engine = build(draft_tokens=3, adaptive_drafts=True, acceptance_values=(0.0,))
        records = engine.run([Arrival(0.0, 0, 4, 5)])
        assert scheduled(records) == [((0, 4),), ((0, 4),), ((0, 3),), ((0, 2),), ((0, 2),)]

    def test_accepted_tokens_are_found_again_once_known(self) -> None:
        # 4 in, drafts all accepted: tokens 5 to 8 fill the second block in step 1, but only 5 is known when they are
        # scheduled; the block is sealed with the next step.
        engine = build(draft_tokens=3, acceptance_values=(1.0,))
        push(engine, 0, 4, 20)
        begin(engine, 0.0)
        engine.end_step()
        begin(engine, 1.0)
        assert len(engine.cache.pool.cached) == 1
        engine.end_step()
        begin(engine, 2.0)
        assert len(engine.cache.pool.cached) == 2
