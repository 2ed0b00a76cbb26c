"""One step-by-step case for each batching policy: who comes first, and what may share a step."""

from __future__ import annotations

import pytest

from tests.rules.driving import add, build, counts, preempted, run, scheduled, share_all, waiting


class TestChunkedPrefill:
    """vLLM V1: running sequences in their order, chunks and decodes alike."""

    def test_a_started_prompt_goes_before_later_decodes(self) -> None:
        # row 0 (5) and 11 of row 1's 40. Step 1: decode, 15. Row 2 arrives, waits for budget: steps 1, 2: 15 + 14 left
        # of row 1. Step 2: 1 + 14, 1 for row 2.
        engine = build()
        add(engine, (5, 5), (40, 2))
        run(engine, 1)
        add(engine, (3, 2), first_row=2, at_s=1.0)
        assert scheduled(run(engine, 3)) == [
            ((0, 1), (1, 15)), ((0, 1), (1, 14), (2, 1)), ((0, 1), (1, 1), (2, 2)),
        ]  # fmt: skip


class TestDecodeFirst:
    """Sarathi-Serve: every decode first, then started prompts, then waiting ones."""

    def test_a_full_budget_of_prompt_leaves_decodes_their_token(self) -> None:
        # budget 4. Row 0 (9) takes 4, 4, 1; row 1 (1) joins beside its last token. Row 2 comes at 3 s: the decodes
        # stand before it in the list, so that it has 2 a step under either policy
        for policy in ("chunked_prefill", "decode_first"):
            engine = build(policy=policy, max_num_batched_tokens=4)
            add(engine, (9, 5), (1, 5))
            run(engine, 3)
            add(engine, (8, 1), first_row=2, at_s=3.0)
            assert scheduled(run(engine, 2)) == [((0, 1), (1, 1), (2, 2))] * 2

    def test_a_prompt_in_front_waits_for_the_decodes_behind_it(self) -> None:
        # Budget 4. At 1 s rows 1 (14 in) and 2 (1 in) join row 0, row 1 with 2 tokens at first. From 2 s on, in the
        # order of the list row 1 takes the 3 that row 0 leaves, and row 2 waits; decodes first leave it 2.
        for policy, expected in [
            ("chunked_prefill", [((0, 1), (1, 3))] * 3),
            ("decode_first", [((0, 1), (1, 2), (2, 1))] * 3),
        ]:
            engine = build(policy=policy, max_num_batched_tokens=4, full_sequence_gate=False)
            add(engine, (1, 20))
            run(engine, 1)
            add(engine, (14, 1), first_row=1, at_s=1.0)
            engine.arrays.prefill_threshold[0] = 2
            add(engine, (1, 20), first_row=2, at_s=1.0)
            assert run(engine, 1)[0].scheduled == ((0, 1), (1, 2), (2, 1))
            engine.arrays.prefill_threshold[0] = 0
            assert scheduled(run(engine, 3)) == expected


class TestPrefillFirst:
    """vLLM V0: a step of prompts while any can be admitted, else a step of decodes."""

    def test_prompts_and_decodes_have_steps_of_their_own(self) -> None:
        # row 2 arrives at 1 s: a step of its own, the decodes wait for it
        engine = build(policy="prefill_first")
        add(engine, (5, 3), (6, 3))
        run(engine, 1)
        add(engine, (16, 2), first_row=2, at_s=1.0)
        assert scheduled(run(engine)) == [((2, 16),), ((0, 1), (1, 1), (2, 1)), ((0, 1), (1, 1))]

    def test_decodes_run_when_the_head_of_the_line_does_not_fit(self) -> None:
        # 4 blocks: row 0 has 2, row 1 wants 3
        engine = build(policy="prefill_first", num_blocks=4)
        add(engine, (5, 3), (12, 1))
        assert scheduled(run(engine)) == [((0, 5),), ((0, 1),), ((0, 1),), ((1, 12),)]

    def test_whole_unless_chunked(self) -> None:
        # 20 of 16: vLLM V0 alone in its step; SGLang 16 and 4, in which row 1 finds room
        for chunk_prompts, expected in [
            (False, [((0, 20),), ((1, 3),), ((0, 1), (1, 1))]),
            (True, [((0, 16),), ((0, 4), (1, 3)), ((0, 1), (1, 1))]),
        ]:
            engine = build(policy="prefill_first", chunk_prompts=chunk_prompts)
            add(engine, (20, 2), (3, 2))
            assert scheduled(run(engine)) == expected

    def test_an_attempt_after_a_preemption_goes_to_the_decodes(self) -> None:
        # 5 blocks, SGLang without the gate. Rows 0, 1 decode in 1 block each; row 2 (16 in) starts at 1 s with 8 (2
        # blocks); its next 8 want 2 more and 1 is free: it is its own victim. It could start again at once: but the
        # decodes run first.
        engine = build(
            policy="prefill_first", chunk_prompts=True, num_blocks=5, max_num_batched_tokens=8,
            full_sequence_gate=False, prefix_caching=False,
        )  # fmt: skip
        add(engine, (2, 3), (2, 3))
        run(engine, 1)
        add(engine, (16, 1), first_row=2, at_s=1.0)
        steps = run(engine, 3)
        assert scheduled(steps) == [((2, 8),), ((0, 1), (1, 1)), ((2, 8),)]
        assert preempted(steps) == [(), (2,), ()]


class TestMixedPool:
    """Splitwise: prompts first, decodes beside them, never left out twice in a row."""

    def test_decodes_have_what_prompts_leave(self) -> None:
        # row 1 (10) goes first, row 0's decode beside it; the running list keeps its order
        engine = build(policy="mixed_pool")
        add(engine, (5, 4))
        run(engine, 1)
        add(engine, (10, 2), first_row=1, at_s=1.0)
        assert scheduled(run(engine, 2)) == [((0, 1), (1, 10)), ((0, 1), (1, 1))]

    def test_left_out_once_they_go_first(self) -> None:
        # Rows 1, 2, 3 fill a step of 16 each. Step 1: row 1, row 0 is left out. Step 2: row 0 first, row 2 does not fit
        # in 15; so row 1 decodes too. Step 3: row 2, both left out. Step 4: they go first, and so on.
        engine = build(policy="mixed_pool")
        add(engine, (5, 9))
        run(engine, 1)
        add(engine, (16, 9), (16, 9), (16, 9), first_row=1, at_s=1.0)
        assert scheduled(run(engine, 5)) == [
            ((1, 16),), ((0, 1), (1, 1)), ((2, 16),), ((0, 1), (1, 1), (2, 1)), ((3, 16),),
        ]  # fmt: skip


class TestStatic:
    """FasterTransformer: a batch is formed when the engine is empty, padded, and ends as a whole."""

    def test_nobody_joins_and_nobody_leaves(self) -> None:
        # at most 2. Row 0 wants 2 tokens, row 1 4: row 0 keeps its place to 4 s, then row 2.
        engine = build(policy="static", max_num_seqs=2, output_reserve_frac=1.0)
        add(engine, (5, 2), (3, 4), (2, 1))
        steps = run(engine)
        assert scheduled(steps) == [((0, 5), (1, 3)), ((0, 1), (1, 1)), ((1, 1),), ((1, 1),), ((2, 2),)]
        assert engine.arrays.row_finish_s[:3].tolist() == [4.0, 4.0, 5.0]
        # prompts: 2 rows of 5: 10 tokens, 2 x 15 pairs. Decodes: 2 at the longest context: 6; then, row 0 having ended
        # with 7 tokens: 7 while row 1 has 5, 6
        assert counts(steps[0]) == (10, 2, 0, 0, 0, 0, 2, 30, 10)
        assert counts(steps[1]) == (2, 2, 2, 2, 12, 6, 0, 0, 0)
        assert counts(steps[2]) == (2, 2, 2, 2, 14, 7, 0, 0, 0)
        assert counts(steps[3]) == (2, 2, 2, 2, 14, 7, 0, 0, 0)
        assert counts(steps[4]) == (2, 1, 0, 0, 0, 0, 1, 3, 2)

    def test_its_blocks_stay_with_it(self) -> None:
        # row 0 ends with its prompt and keeps 2 blocks until row 1 has ended
        engine = build(policy="static", max_num_seqs=2, output_reserve_frac=1.0)
        add(engine, (5, 1), (3, 3))
        assert [step.free_blocks for step in run(engine)] == [97, 97, 96]
        assert engine.arrays.num_free_blocks[0] == 100

    def test_the_budget_counts_padding(self) -> None:
        # 9 and 2: 2 x 9 > 16
        engine = build(policy="static", output_reserve_frac=1.0)
        add(engine, (9, 1), (2, 1))
        assert scheduled(run(engine)) == [((0, 9),), ((1, 2),)]

    def test_all_outputs_are_reserved(self) -> None:
        # 4 blocks: each row has 1 and needs 2 in the end; a third would have to be preempted later
        engine = build(policy="static", num_blocks=4, output_reserve_frac=1.0)
        add(engine, (4, 5), (4, 5), (4, 5))
        steps = run(engine)
        assert steps[0].scheduled == ((0, 4), (1, 4))
        assert preempted(steps) == [()] * 10

    def test_a_batch_whose_last_unfinished_sequence_gave_way_is_over(self) -> None:
        # without the reserve: 2 blocks. Row 0 (4 in, 2 out) and row 1 (4 in, 1 out): row 1 has ended with the prompts
        # and holds its block; row 0 needs a second one, and nobody else can give way
        engine = build(policy="static", num_blocks=2, prefix_caching=False)
        add(engine, (4, 2), (4, 1))
        steps = run(engine)
        assert scheduled(steps) == [((0, 4), (1, 4)), ((0, 5),)]
        assert engine.arrays.row_finish_s[:2].tolist() == [2.0, 1.0]


class TestPadded:
    """Prompts of a step cost as much as the longest each."""

    def test_admitted_up_to_the_padded_budget(self) -> None:
        # 5; 2 x 5 = 10; 3 x 5 = 15; a fourth would be 20
        engine = build(policy="padded")
        add(engine, (5, 1), (2, 1), (4, 1), (1, 1))
        steps = run(engine)
        assert scheduled(steps) == [((0, 5), (1, 2), (2, 4)), ((3, 1),)]
        assert counts(steps[0]) == (15, 3, 0, 0, 0, 0, 3, 45, 15)

    def test_a_longer_one_lengthens_all(self) -> None:
        # 2, 3: 2 x 3 = 6; with 6: 3 x 6 = 18 > 16
        engine = build(policy="padded")
        add(engine, (2, 1), (3, 1), (6, 1))
        assert scheduled(run(engine)) == [((0, 2), (1, 3)), ((2, 6),)]

    def test_history_is_read_as_it_is(self) -> None:
        # row 1 finds 8 of its 12 tokens: 4 new beside row 2's 6: 2 x 6 tokens, 2 x 21 pairs + 6 x 8, contexts 12 + 8
        engine = build(policy="padded")
        share_all(engine, 0, 1)
        add(engine, (9, 1))
        run(engine)
        add(engine, (12, 1), (6, 1), first_row=1, at_s=1.0)
        step = run(engine)[0]
        assert step.scheduled == ((1, 4), (2, 6))
        assert counts(step) == (12, 2, 0, 0, 0, 0, 2, 90, 20)

    def test_time_is_that_of_the_padded_tokens(self) -> None:
        # 1 s + 0.25 s a token: 15 tokens
        engine = build(policy="padded", token_s=0.25)
        add(engine, (5, 1), (2, 1), (4, 1))
        assert run(engine)[0].end_s == 1.0 + 15 / 4


class TestPrepacked:
    """Rows of the longest prompt's length, filled by first-fit-decreasing (arXiv 2404.09529)."""

    def test_rows_by_hand(self) -> None:
        # 6, 3, 2, 4: sorted 6 | 4, 2 | 3 -> rows [6], [4 2], [3]: 3 rows x 6 = 18 > 16. Without the 4: [6], [3 2]: 12.
        engine = build(policy="prepacked")
        add(engine, (6, 1), (3, 1), (2, 1), (4, 1))
        steps = run(engine)
        assert scheduled(steps) == [((0, 6), (1, 3), (2, 2)), ((3, 4),)]
        assert counts(steps[0]) == (12, 3, 0, 0, 0, 0, 2, 42, 12)

    def test_more_fit_than_padded(self) -> None:
        # 8, 5, 3: one row of 8 and one of 5 + 3, where padding would make 24
        engine = build(policy="prepacked")
        add(engine, (8, 1), (5, 1), (3, 1))
        assert scheduled(run(engine)) == [((0, 8), (1, 5), (2, 3))]


class TestLayeredPrefill:
    """A wave of prompts runs through one group of layers a step, beside all decodes (arXiv 2510.08055)."""

    def test_a_wave_by_hand(self) -> None:
        # Row 0 decodes from 1 s on. Row 1 (12 tokens) makes ceil(12 / 4) = 3 groups: steps 1, 2, 3 hold its 12 tokens
        # and a decode each; it has its first token at 4 s.
        engine = build(policy="layered_prefill", layer_group_tokens=4, num_layers=8)
        add(engine, (2, 9))
        run(engine, 1)
        add(engine, (12, 3), first_row=1, at_s=1.0)
        steps = run(engine, 4)
        assert scheduled(steps) == [((0, 1), (1, 12))] * 3 + [((0, 1), (1, 1))]
        assert [step.num_layer_groups for step in steps] == [3, 3, 3, 1]
        # logits of the prompt in the last of them only
        assert [counts(step)[1] for step in steps] == [1, 1, 2, 2]
        assert engine.arrays.row_generated[:2].tolist() == [5, 2]

    def test_no_more_groups_than_layers_and_one_at_least(self) -> None:
        for num_layers, layer_group_tokens, expected in [(2, 4, 2), (8, 100, 1), (8, 6, 2), (8, 5, 3)]:
            engine = build(policy="layered_prefill", layer_group_tokens=layer_group_tokens, num_layers=num_layers)
            add(engine, (12, 1))
            assert len(run(engine)) == expected

    def test_those_who_come_later_wait_for_the_next_wave(self) -> None:
        # rows 0 and 1 are one wave of 2 steps; row 2 comes during it
        engine = build(policy="layered_prefill", layer_group_tokens=8, num_layers=8)
        add(engine, (8, 1), (4, 2))
        run(engine, 1)
        add(engine, (3, 1), first_row=2, at_s=0.5)
        assert scheduled(run(engine)) == [((0, 8), (1, 4)), ((1, 1), (2, 3))]

    def test_seconds_by_hand(self) -> None:
        # 1 s a step + 0.25 s a token. Decode alone 1.25 s, decode and wave of 8: 1 + 9 / 4 = 3.25 s. In 2 groups:
        # 3.25 / 2 + 1.25 / 2 = 2.25 s a step. Without decodes: (1 + 2) / 2 = 1.5 s on the device.
        engine = build(policy="layered_prefill", layer_group_tokens=4, num_layers=8, token_s=0.25)
        add(engine, (1, 9))
        run(engine, 1)
        add(engine, (8, 1), first_row=1, at_s=engine.next_start_s)
        assert [sum(step.seconds) for step in run(engine, 3)] == pytest.approx([2.25, 2.25, 1.25])
        engine = build(policy="layered_prefill", layer_group_tokens=4, num_layers=8, token_s=0.25, host_s=0.5)
        add(engine, (8, 1))
        assert [step.seconds for step in run(engine)] == [pytest.approx((1.5, 0.0, 0.0, 0.5))] * 2

    def test_all_of_a_wave_preempted_ends_it(self) -> None:
        # 4 blocks, no cache. Row 0 (7 in, 4 groups) has its prompt done after 4 steps and 8 tokens in 2 blocks after 5.
        # Row 1 (8 in, 4 groups, 2 blocks) joins then. In step 6 row 0 needs a third block: row 1 goes, and the wave
        # ends.
        engine = build(policy="layered_prefill", layer_group_tokens=2, num_layers=8, num_blocks=4, prefix_caching=False)
        add(engine, (7, 5))
        run(engine, 4)  # 7 / 2: 4 groups
        add(engine, (8, 1), first_row=1, at_s=engine.next_start_s)
        steps = run(engine, 3)
        assert scheduled(steps) == [((0, 1), (1, 8)), ((0, 1),), ((0, 1),)]
        assert preempted(steps) == [(), (1,), ()]
        assert waiting(engine) == [1]
        assert scheduled(run(engine))[1:] == [((1, 8),)] * 4
