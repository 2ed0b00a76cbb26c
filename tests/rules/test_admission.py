"""Rules 6 to 9: who is admitted, in which order, against which blocks."""

from __future__ import annotations

import pytest

from tests.rules.driving import add, build, run, scheduled, share_all


class TestWaiting:
    """Rule 6: only if nothing was preempted; head of line; admission never preempts."""

    def test_nobody_is_admitted_in_a_step_that_preempted(self) -> None:
        # row 1 gives 2 blocks back at 2 s; row 2 (1 block) would fit at once but waits, and behind row 1
        engine = build(num_blocks=5)
        add(engine, (7, 3), (7, 4))
        run(engine, 2)
        add(engine, (3, 1), first_row=2, at_s=2.0)
        steps = run(engine, 2)
        assert scheduled(steps) == [((0, 1),), ((1, 1), (2, 3))]
        assert (steps[0].num_preemptions, steps[0].free_blocks) == (1, 2)

    def test_the_first_that_does_not_fit_holds_up_the_others(self) -> None:
        # 5 blocks: row 0 has 2, row 1 wants 5, row 2 one
        engine = build(num_blocks=5)
        add(engine, (8, 2), (20, 1), (3, 1))
        assert scheduled(run(engine, 3)) == [((0, 8),), ((0, 1),), ((1, 16),)]

    def test_admission_never_preempts_not_even_for_the_most_urgent(self) -> None:
        engine = build(num_blocks=3, queue_order="priority")
        engine.push(0.0, 0, 7, 2, 9)
        run(engine, 1)
        engine.push(1.0, 1, 7, 1, 0)
        steps = run(engine)
        assert scheduled(steps) == [((0, 1),), ((1, 7),)]
        assert all(step.num_preemptions == 0 for step in steps)

    def test_order_of_the_line(self) -> None:
        for queue_order, order in [("fcfs", [0, 1, 2, 3]), ("priority", [2, 1, 3, 0])]:
            engine = build(queue_order=queue_order)
            for row, priority in enumerate([2, 1, 0, 1]):
                engine.push(0.0, row, 2, 1, priority)
            assert [row for row, _ in run(engine)[0].scheduled] == order


class TestGate:
    """Rules 7 to 9: the whole sequence, the watermark, blocks needed."""

    def test_the_whole_sequence_or_the_first_chunk(self) -> None:
        # 5 blocks: row 0 has 2, row 1 wants 2 for its chunk of 8 and 5 in all
        for gate, first in [(True, ((0, 8),)), (False, ((0, 8), (1, 8)))]:
            engine = build(num_blocks=5, full_sequence_gate=gate)
            add(engine, (8, 2), (20, 1))
            assert run(engine, 1)[0].scheduled == first

    def test_without_the_gate_cached_and_new_tokens_count_together(self) -> None:
        # row 0 has 9 tokens in 3 blocks when row 1 comes: 8 of 17 cached, 9 new in one chunk: 5 blocks, 2 of them hits
        for num_blocks, second in [(5, ((0, 1),)), (6, ((0, 1), (1, 9)))]:
            engine = build(num_blocks=num_blocks, full_sequence_gate=False)
            share_all(engine, 0, 1)
            add(engine, (8, 4))
            run(engine, 1)
            add(engine, (17, 1), first_row=1, at_s=1.0)
            assert run(engine, 1)[0].scheduled == second

    def test_generated_tokens_of_a_resumed_sequence_count(self) -> None:
        # row 1 is evicted with 9 known tokens: 3 blocks. Row 0 keeps 3 of 5: the prompt's 2 would fit, 3 do not.
        engine = build(num_blocks=5, prefix_caching=False)
        add(engine, (7, 5), (7, 4))
        assert scheduled(run(engine))[2:6] == [((0, 1),), ((0, 1),), ((0, 1),), ((1, 9),)]

    @pytest.mark.parametrize(
        ("watermark_frac", "num_prompt", "fits"),
        [(0.0, 20, True), (0.25, 20, False), (0.25, 16, True), (0.19, 20, True)],
    )
    def test_watermark(self, watermark_frac: float, num_prompt: int, fits: bool) -> None:
        # 10 blocks, row 0 has 4: 6 free. floor(0.25 x 10) = 2 are kept: 4 of row 1's may go, 5 not; floor(1.9) = 1.
        engine = build(num_blocks=10, max_num_batched_tokens=64, watermark_frac=watermark_frac)
        add(engine, (16, 2), (num_prompt, 1))
        assert (len(run(engine, 1)[0].scheduled) == 2) == fits

    def test_watermark_holds_up_neither_an_empty_engine_nor_a_running_sequence(self) -> None:
        # 9 of 10 blocks at once though 2 are to be kept, and the tenth for token 37
        engine = build(num_blocks=10, max_num_batched_tokens=64, watermark_frac=0.25)
        add(engine, (36, 3))
        assert [step.free_blocks for step in run(engine)] == [1, 0, 0]

    def test_need_is_rounded_up_less_what_is_owned(self) -> None:
        # 5, then 6, 7, 8 tokens: 2 blocks; the ninth needs a third
        engine = build()
        add(engine, (5, 6))
        assert [100 - step.free_blocks for step in run(engine)] == [2, 2, 2, 2, 3, 3]

    def test_hits_in_the_free_queue_are_not_free_for_the_rest(self) -> None:
        # 4 blocks; row 0 leaves 2 cached. Row 2 (2 in, 2 out) takes one: 3 free, 2 of them row 1's hits. It needs 2
        # more and there is 1, until row 2 has gone.
        engine = build(num_blocks=4)
        share_all(engine, 0, 1)
        add(engine, (8, 1))
        run(engine, 1)
        add(engine, (2, 2), first_row=2, at_s=1.0)
        add(engine, (16, 1), first_row=1, at_s=1.0)
        steps = run(engine)
        assert scheduled(steps) == [((2, 2),), ((2, 1),), ((1, 8),)]
        assert steps[2].free_blocks == 0
