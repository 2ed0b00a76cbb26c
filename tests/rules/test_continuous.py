"""Orca's iteration-level scheduling: prompts whole, beside running decodes."""

from __future__ import annotations

from tests.rules.driving import add, build, run, scheduled, share_all


class TestContinuous:
    """Orca: prompts whole, beside running decodes."""

    def test_prompts_are_whole_and_share_a_step_up_to_the_budget(self) -> None:
        engine = build(policy="continuous")
        add(engine, (5, 1), (11, 1), (1, 1))
        assert scheduled(run(engine)) == [((0, 5), (1, 11)), ((2, 1),)]

    def test_one_that_does_not_fit_beside_the_others_waits(self) -> None:
        # 6 are left after row 0, row 1 wants 10; then 15 after the decode
        engine = build(policy="continuous")
        add(engine, (10, 3), (10, 1))
        assert scheduled(run(engine)) == [((0, 10),), ((0, 1), (1, 10)), ((0, 1),)]

    def test_longer_than_any_budget_goes_as_the_only_prompt(self) -> None:
        engine = build(policy="continuous")
        add(engine, (3, 3), (20, 1), (2, 1))
        assert scheduled(run(engine)) == [((0, 3),), ((0, 1), (1, 20)), ((0, 1), (2, 2))]

    def test_exactly_the_budget_waits_for_an_empty_step(self) -> None:
        engine = build(policy="continuous")
        add(engine, (3, 3), (16, 1))
        assert scheduled(run(engine)) == [((0, 3),), ((0, 1),), ((0, 1),), ((1, 16),)]

    def test_cached_tokens_cost_no_budget(self) -> None:
        # 20 tokens, 8 cached: 12 fit beside 4 of row 2
        engine = build(policy="continuous")
        share_all(engine, 0, 1)
        add(engine, (8, 1))
        run(engine, 1)
        add(engine, (4, 1), first_row=2, at_s=1.0)
        add(engine, (20, 1), first_row=1, at_s=1.0)
        assert scheduled(run(engine)) == [((2, 4), (1, 12))]

    def test_threshold_splits_no_prompt(self) -> None:
        engine = build(policy="continuous", long_prefill_token_threshold=4)
        add(engine, (10, 1))
        assert scheduled(run(engine)) == [((0, 10),)]

    def test_a_resumed_sequence_is_computed_whole(self) -> None:
        # 4 blocks, budget 8. Rows of 4 each grow to 8 tokens; in step 5 row 1 goes with 5 outputs: 9 known tokens, more
        # than any step may hold, so they come back as the only prompt.
        engine = build(num_blocks=4, policy="continuous", max_num_batched_tokens=8)
        engine.arrays.prefix_caching[0] = 0
        add(engine, (4, 10), (4, 10))
        steps = run(engine)
        assert [number for number, step in enumerate(steps) if step.num_preemptions] == [5]
        assert next(step.scheduled for step in steps[5:] if step.scheduled[0][0] == 1) == ((1, 9),)
