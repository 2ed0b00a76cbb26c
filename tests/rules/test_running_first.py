"""Rules 3 to 5: running sequences first, who gives way, and what becomes of them."""

from __future__ import annotations

from tests.rules.driving import add, blocks, build, counts, run, scheduled, waiting


class TestRunningFirst:
    """Rule 3: who has nothing to schedule is passed over; who is his own victim stops the phase."""

    def test_without_budget_a_running_sequence_is_passed_over_and_stays(self) -> None:
        # budget 3. Step 0: three prompts of 1. Step 1: three decodes. At 2 s row 3 (prompt 6) waits: no budget while
        # three decode. Lowering the budget to 2 starves row 2, which keeps its place and its blocks.
        engine = build(max_num_batched_tokens=3)
        add(engine, (1, 9), (1, 9), (1, 9))
        run(engine, 2)
        engine.arrays.max_num_batched_tokens[0] = 2
        add(engine, (6, 1), first_row=3, at_s=2.0)
        assert scheduled(run(engine, 2)) == [((0, 1), (1, 1))] * 2
        assert waiting(engine) == [3]
        assert len(blocks(engine, 2)) == 1
        engine.arrays.max_num_batched_tokens[0] = 4
        assert scheduled(run(engine, 1)) == [((0, 1), (1, 1), (2, 1), (3, 1))]

    def test_its_own_victim_stops_the_phase(self) -> None:
        # 3 blocks, by priority: rows 0 (urgent), 1 (least urgent), 2. Before step 2 they have 3, 4 and 2 tokens in a
        # block each. Row 0 decodes; row 1 needs a block and is the victim itself; row 2, which needs none, waits too.
        engine = build(num_blocks=3, queue_order="priority")
        engine.push(0.0, 0, 2, 3, 0)
        engine.push(0.0, 1, 3, 4, 9)
        run(engine, 1)
        engine.push(1.0, 2, 2, 3, 1)
        steps = run(engine, 2)
        assert scheduled(steps) == [((0, 1), (1, 1), (2, 2)), ((0, 1),)]
        assert [len(step.preempted) for step in steps] == [0, 1]
        assert steps[1].free_blocks == 1

    def test_scheduling_starts_over_when_nobody_is_left(self) -> None:
        # 2 blocks. Step 2: row 0, less urgent and first in the list, evicts itself: nobody would run. So again from the
        # front: row 1 has its token. Row 0 resumes when row 1 has gone, 4 of its 5 tokens cached.
        engine = build(num_blocks=2, queue_order="priority")
        engine.push(0.0, 0, 3, 5, 9)
        run(engine, 1)
        engine.push(1.0, 1, 3, 2, 0)
        steps = run(engine, 3)
        assert scheduled(steps) == [((0, 1), (1, 3)), ((1, 1),), ((0, 1),)]
        assert [len(step.preempted) for step in steps] == [0, 1, 0]


class TestVictim:
    """Rule 4: the tail under fcfs; the largest (priority, arrival) otherwise, whose budget comes back."""

    def test_fcfs_takes_the_tail_whatever_its_priority(self) -> None:
        # 3 blocks full after step 0; row 0 needs a second one: row 2 goes, then row 1 needs one and is the tail itself
        engine = build(num_blocks=3)
        for row, priority in enumerate([5, 9, 0]):
            engine.push(0.0, row, 4, 3, priority)
        run(engine, 1)
        step = run(engine, 1)[0]
        assert step.scheduled == ((0, 1),)
        assert step.num_preemptions == 2
        assert waiting(engine) == [1, 2]

    def test_priority_takes_the_least_urgent_wherever_it_stands(self) -> None:
        # blocks of 2, all 3 full. Running order by urgency: 1 (0), then 0 and 2 (both 1): 2 came later and goes first,
        # then row 0, which needs a block itself.
        engine = build(num_blocks=3, block_tokens=2, queue_order="priority")
        for row, priority in enumerate([1, 0, 1]):
            engine.push(0.0, row, 2, 3, priority)
        steps = run(engine, 2)
        assert scheduled(steps) == [((1, 2), (0, 2), (2, 2)), ((1, 1),)]
        assert steps[1].num_preemptions == 2
        assert waiting(engine) == [0, 2]

    def test_budget_of_a_victim_already_scheduled_is_refunded(self) -> None:
        # 5 blocks, budget 4, at most 2 tokens each. Row 0 (least urgent) has 2 in; rows 1, 2 (12 in) join at 1 s.
        #   computed after step    0  1  2  3  4
        #   row 0                  2  3  4  5  6     2 blocks from step 3
        #   row 1, 2 a step           2  4  6  8     2 blocks from step 3
        #   row 2, the 1 left         1  2  3  4     1 block
        # Step 5: row 0 takes 1. Row 1 needs a third block: row 0 goes, its 1 comes back: 2 for row 1, 2 for row 2.
        engine = build(
            num_blocks=5, max_num_batched_tokens=4, long_prefill_token_threshold=2, full_sequence_gate=False,
            queue_order="priority",
        )  # fmt: skip
        engine.push(0.0, 0, 2, 8, 9)
        run(engine, 1)
        engine.push(1.0, 1, 12, 1, 0)
        engine.push(1.0, 2, 12, 1, 1)
        steps = run(engine, 5)
        assert scheduled(steps) == [((0, 1), (1, 2), (2, 1))] * 4 + [((1, 2), (2, 2))]
        assert steps[4].num_preemptions == 1
        assert waiting(engine) == [0]


class TestPreempted:
    """Rule 5: all blocks go, tokens stay, front of the line, prompt and outputs are prefilled again."""

    def test_recomputes_prompt_and_outputs_at_once(self) -> None:
        # 4 blocks, no cache. 7 tokens each: 2 blocks each, 8 tokens after step 1. Step 2: row 0 needs a third block,
        # row 1 goes with 2 outputs. Row 0 ends with step 9; step 10 computes 7 + 2 tokens of row 1 and gives its third.
        engine = build(num_blocks=4, prefix_caching=False)
        add(engine, (7, 10), (7, 10))
        steps = run(engine)
        assert scheduled(steps) == [
            ((0, 7), (1, 7)), ((0, 1), (1, 1)), *[((0, 1),)] * 8, ((1, 9),), *[((1, 1),)] * 7,
        ]  # fmt: skip
        assert [len(step.preempted) for step in steps] == [0, 0, 1, *[0] * 15]
        assert steps[2].free_blocks == 1
        assert counts(steps[10]) == (9, 1, 0, 0, 0, 0, 1, 45, 9)  # a prefill: 9 x 10 / 2 pairs
        arrays = engine.arrays
        assert arrays.row_finish_s[:2].tolist() == [10.0, 18.0]
        assert (arrays.row_start_s[1], arrays.row_preempted_s[1]) == (0.0, 8.0)
        assert arrays.total_recomputed_tokens[0] == 8

    def test_recomputes_in_chunks(self) -> None:
        # prompts of 3, budget 5: row 1 starts with 2 and is one step behind. Row 0 needs its third block in step 6; by
        # then row 1 has 5 outputs: 8 known tokens come back as 5 and 3.
        engine = build(num_blocks=4, prefix_caching=False, max_num_batched_tokens=5)
        add(engine, (3, 7), (3, 7))
        steps = run(engine)
        assert [number for number, step in enumerate(steps) if step.num_preemptions] == [6]
        resumed = [step.scheduled for step in steps[6:] if step.scheduled[0][0] == 1]
        assert resumed == [((1, 5),), ((1, 3),), ((1, 1),)]

    def test_blocks_that_survived_help(self) -> None:
        # 5 blocks. Step 2: row 0 takes the last one; row 1 is its own victim. Row 0 ends with the step. Row 1 knows 9
        # tokens, finds 8 and computes 1, which is a decode over 9.
        engine = build(num_blocks=5)
        add(engine, (7, 3), (7, 4))
        steps = run(engine)
        assert scheduled(steps) == [((0, 7), (1, 7)), ((0, 1), (1, 1)), ((0, 1),), ((1, 1),), ((1, 1),)]
        assert [len(step.preempted) for step in steps] == [0, 0, 1, 0, 0]
        assert counts(steps[3]) == (1, 1, 1, 1, 9, 9, 0, 0, 0)
        assert steps[3].free_blocks == 2
        assert engine.arrays.total_recomputed_tokens[0] == 0  # 8 were lost, 8 found again
        assert engine.arrays.row_cached[1] == 0  # no part of the prompt was ever saved

    def test_goes_to_the_front_and_several_keep_their_order(self) -> None:
        # 6 blocks, three rows of 7: 2 blocks each. Step 2: row 2 goes, rows 0 and 1 take its blocks and last to 12
        # tokens. Step 6: row 1 goes too, in front of row 2 and of row 3, which came at 2 s.
        engine = build(num_blocks=6)
        add(engine, (7, 12), (7, 12), (7, 12))
        run(engine, 2)
        add(engine, (7, 1), first_row=3, at_s=2.0)
        run(engine, 1)
        assert waiting(engine) == [2, 3]
        run(engine, 4)
        assert waiting(engine) == [1, 2, 3]

    def test_under_priority_it_returns_to_its_place(self) -> None:
        # as the tail-first case, with a more urgent request waiting
        engine = build(num_blocks=3, block_tokens=2, queue_order="priority")
        for row, priority in enumerate([1, 0, 1]):
            engine.push(0.0, row, 2, 3, priority)
        run(engine, 1)
        engine.push(1.0, 3, 2, 1, 0)
        run(engine, 1)
        assert waiting(engine) == [3, 0, 2]
