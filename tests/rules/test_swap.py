"""What becomes of a victim's KV: computed again, or copied to the host and back; and who is the victim."""

from __future__ import annotations

import pytest

from tests.rules.driving import Scheduled, add, build, counts, preempted, run, scheduled, waiting


class TestSwap:
    # 4 blocks, no cache, two rows of 7: 2 blocks each. Step 2: row 0 needs a third; row 1 has 8 computed tokens in 2
    # blocks (9 known). It comes back when row 0 has ended, 10 outputs: after step 9.

    @pytest.mark.parametrize("swap_blocks", [2, 50])
    def test_it_goes_on_where_it_was(self, swap_blocks: int) -> None:
        engine = build(num_blocks=4, prefix_caching=False, preemption="swap", swap_blocks=swap_blocks)
        add(engine, (7, 10), (7, 10))
        steps = run(engine)
        assert (steps[2].preempted, steps[2].swapped_out) == ((1,), ((1, 2),))
        assert (steps[10].swapped_in, steps[10].admitted) == (((1, 2),), ((1, 8),))
        assert scheduled(steps)[10:] == [((1, 1),)] * 8
        assert counts(steps[10]) == (1, 1, 1, 1, 9, 9, 0, 0, 0)
        arrays = engine.arrays
        assert (arrays.total_recomputed_tokens[0], arrays.total_swapped_blocks[0]) == (0, 4)
        assert arrays.row_finish_s[:2].tolist() == [10.0, 18.0]

    def test_without_room_on_the_host_it_is_computed_again(self) -> None:
        engine = build(num_blocks=4, prefix_caching=False, preemption="swap", swap_blocks=1)
        add(engine, (7, 10), (7, 10))
        steps = run(engine)
        assert (steps[2].preempted, steps[2].swapped_out) == ((1,), ())
        assert scheduled(steps)[10] == ((1, 9),)

    def test_copies_take_time_in_the_step_that_makes_them(self) -> None:
        # 0.125 s a block on the link to the host: 2 blocks out in step 2, back in step 10
        engine = build(num_blocks=4, prefix_caching=False, preemption="swap", swap_blocks=50, swap_block_s=0.125)
        add(engine, (7, 10), (7, 10))
        seconds = [step.seconds for step in run(engine)]
        assert seconds[2] == seconds[10] == (1.0, 0.0, 0.25, 0.0)
        assert all(step == (1.0, 0.0, 0.0, 0.0) for number, step in enumerate(seconds) if number not in (2, 10))

    def test_an_unfinished_prompt_is_computed_again(self) -> None:
        # 4 blocks, 8 tokens a step at most, without the gate. Row 0 (7 in) fills 2 blocks at 2 s; row 1 (16 in) has 1
        # token from step 0, 8 of it after step 1 in 2 blocks; in step 2 row 0 needs a third block: row 1 goes, a prompt
        # still
        engine = build(
            num_blocks=4, max_num_batched_tokens=8, full_sequence_gate=False, prefix_caching=False, preemption="swap",
            swap_blocks=50,
        )  # fmt: skip
        add(engine, (7, 3), (16, 1))
        steps = run(engine, 3)
        assert scheduled(steps) == [((0, 7), (1, 1)), ((0, 1), (1, 7)), ((0, 1),)]
        assert (steps[2].preempted, steps[2].swapped_out) == ((1,), ())

    def test_it_finds_its_own_order(self) -> None:
        # the swapped one is next in line
        engine = build(num_blocks=4, prefix_caching=False, preemption="swap", swap_blocks=50)
        add(engine, (7, 10), (7, 10))
        run(engine, 2)
        add(engine, (3, 1), first_row=2, at_s=2.0)
        run(engine, 1)
        assert waiting(engine) == [1, 2]


class TestVictims:
    """`fewest_generated` (SGLang's retraction): fewest output tokens; then the longest prompt; then the later one."""

    @pytest.mark.parametrize(("victim", "gone"), [("last", 3), ("fewest_generated", 2)])
    def test_longest_prompt_then_last(self, victim: str, gone: int) -> None:
        # 6 blocks: 1, 2, 2 and 1. Row 0 needs a second one in step 1. All have one output; rows 1 and 2 have the
        # longest prompts, row 2 came later. The tail is row 3.
        engine = build(num_blocks=6, victim=victim, max_num_batched_tokens=32)
        add(engine, (4, 3), (6, 3), (6, 3), (2, 3))
        steps = run(engine, 2)
        assert steps[1].preempted == (gone,)
        assert steps[1].scheduled == tuple((row, 1) for row in range(4) if row != gone)

    @pytest.mark.parametrize(
        ("victim", "gone", "last_step"), [("last", 1, ((0, 2),)), ("fewest_generated", 0, ((1, 1),))]
    )
    def test_fewest_tokens_first(self, victim: str, gone: int, last_step: Scheduled) -> None:
        # 3 blocks, 2 prompt tokens a step, no gate. Row 0 (12 in) has 2, 4, 6, 8 computed tokens, row 1 (2 in) 2, 3, 4
        # and in step 3 its fifth, which needs a second block while row 0 has two. Row 0 has no output yet.
        engine = build(
            num_blocks=3, victim=victim, long_prefill_token_threshold=2, full_sequence_gate=False, prefix_caching=False
        )
        add(engine, (12, 1), (2, 9))
        steps = run(engine, 4)
        assert preempted(steps) == [(), (), (), (gone,)]
        assert steps[3].scheduled == last_step

    def test_who_needs_the_block_may_be_the_victim(self) -> None:
        # of equal outputs row 0's prompt is the longest: it goes itself; nobody had a token yet, so again from the
        # front
        engine = build(num_blocks=2, victim="fewest_generated")
        add(engine, (4, 3), (3, 3))
        steps = run(engine, 2)
        assert steps[1].preempted == (0,)
        assert steps[1].scheduled == ((1, 1),)
