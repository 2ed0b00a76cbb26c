"""Rules 1 and 2: tokens to do, one budget, a bound on the running list."""

from __future__ import annotations

import pytest

from tests.rules.driving import add, build, run, scheduled


class TestNoPhases:
    """Rule 1: tokens to schedule = prompt + generated - computed."""

    def test_prompt_then_one_token_a_step(self) -> None:
        # the prompt's step gives token 1; the last token is never computed
        engine = build()
        add(engine, (5, 3))
        assert scheduled(run(engine)) == [((0, 5),), ((0, 1),), ((0, 1),)]
        assert engine.arrays.row_finish_s[0] == 3.0

    @pytest.mark.parametrize("num_output", [0, 1])
    def test_none_or_one_token_ends_with_the_prompt(self, num_output: int) -> None:
        engine = build()
        add(engine, (20, num_output))
        assert scheduled(run(engine)) == [((0, 16),), ((0, 4),)]
        assert engine.arrays.row_generated[0] == num_output

    def test_threshold_caps_a_prompt_and_leaves_budget_to_the_next(self) -> None:
        # 25 = 10 + 10 + 5; 6 of 16 are left to row 1 in each of the first two steps
        engine = build(long_prefill_token_threshold=10)
        add(engine, (25, 1), (12, 1))
        assert scheduled(run(engine)) == [((0, 10), (1, 6)), ((0, 10), (1, 6)), ((0, 5),)]

    def test_threshold_caps_running_sequences_as_well_as_new_ones(self) -> None:
        # row 0 is admitted with 3, goes on with 3, 3, 1
        engine = build(long_prefill_token_threshold=3)
        add(engine, (10, 1))
        assert scheduled(run(engine)) == [((0, 3),), ((0, 3),), ((0, 3),), ((0, 1),)]


class TestBudget:
    """Rule 2: one budget in running order; max_num_seqs bounds the running list."""

    def test_decodes_and_prompts_share_it_in_running_order(self) -> None:
        # step 0: 5 + 11. Step 1: 1 + 15 (26 of 30). Step 2: 1 + 4, then row 2 needs 6 of the other 11. Row 1 wanted
        # one token and is gone; the order of the others stays.
        engine = build()
        add(engine, (5, 4), (30, 1), (6, 2))
        assert scheduled(run(engine)) == [
            ((0, 5), (1, 11)), ((0, 1), (1, 15)), ((0, 1), (1, 4), (2, 6)), ((0, 1), (2, 1)),
        ]  # fmt: skip

    def test_whole_budget_may_go_to_the_first(self) -> None:
        engine = build()
        add(engine, (40, 1), (1, 1))
        assert scheduled(run(engine)) == [((0, 16),), ((0, 16),), ((0, 8), (1, 1))]

    def test_max_num_seqs(self) -> None:
        # row 2 comes when the other two have gone
        engine = build(max_num_seqs=2)
        add(engine, (2, 2), (2, 2), (2, 2))
        assert scheduled(run(engine)) == [((0, 2), (1, 2)), ((0, 1), (1, 1)), ((2, 2),), ((2, 1),)]


class TestReceiveInterval:
    """New requests are fetched before every so many-th step while sequences decode, and after every prompt."""

    def test_who_comes_between_two_looks_waits_for_the_next(self) -> None:
        # a look before step 1, after the prompt; the next one is due three steps later, before step 4
        engine = build()
        engine.arrays.receive_every_steps[0] = 3
        add(engine, (5, 8))
        first = run(engine, 2)
        add(engine, (2, 1), at_s=2.0, first_row=1)
        steps = scheduled([*first, *run(engine)])
        assert [number for number, step in enumerate(steps) if len(step) == 2] == [4]
        assert steps[4] == ((0, 1), (1, 2))

    def test_an_idle_engine_looks_at_once(self) -> None:
        engine = build()
        engine.arrays.receive_every_steps[0] = 100
        add(engine, (5, 1), (4, 1))
        assert scheduled(run(engine)) == [((0, 5), (1, 4))]

    def test_all_that_were_fetched_are_admitted_however_many_steps_it_takes(self) -> None:
        # 16 tokens a step: the second prompt of 16 follows the first without another look
        engine = build()
        engine.arrays.receive_every_steps[0] = 50
        add(engine, (16, 2), (16, 2))
        assert scheduled(run(engine))[:2] == [((0, 16),), ((0, 1), (1, 15))]
