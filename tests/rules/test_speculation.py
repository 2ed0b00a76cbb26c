"""Speculative decoding: drafts beside a decode, which of them count, what they cost in blocks and time."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.batching.speculation import uniform
from hermes_sim.state.hashes import mix
from tests.one_engine import CompiledEngine, Step
from tests.rules.driving import add, blocks, build, counts, preempted, row_of, run, scheduled


def accepted(steps: list[Step]) -> list[tuple[tuple[int, int], ...]]:
    return [step.accepted for step in steps]


def always(*values: int, **options: object) -> CompiledEngine:
    """Accepted counts from a list of one entry repeat it, whatever the place."""
    return build(acceptance="trace", acceptance_values=values, **options)  # type: ignore[arg-type]


def tree(nodes: tuple[int, ...], **options: object) -> CompiledEngine:
    """All drafts are right; `nodes` of the tree down to each depth."""
    engine = always(9, draft_tokens=len(nodes), **options)
    engine.arrays.tree_width[0] = 0
    engine.arrays.draft_nodes[0] = (0, *nodes)
    return engine


class TestTokens:
    def test_one_and_the_drafts_are_scheduled_what_is_accepted_counts(self) -> None:
        # 3 drafts, 2 accepted: 3 tokens a step. Prompt 1 token; 2 to 4; 5 to 7; 8 only: 8 outputs in 1 + 3 steps
        engine = always(2, draft_tokens=3)
        add(engine, (5, 8))
        steps = run(engine)
        assert scheduled(steps) == [((0, 5),), ((0, 4),), ((0, 4),), ((0, 4),)]
        assert accepted(steps) == [(), ((0, 2),), ((0, 2),), ((0, 0),)]
        arrays = engine.arrays
        assert (arrays.total_drafted[0], arrays.total_accepted[0], arrays.row_generated[0]) == (9, 4, 8)
        # tokens get logits, drafts too; contexts with all of them: 5 + 4, 8 + 4, 11 + 4
        assert [counts(step) for step in steps[1:]] == [(4, 4, 1, 4, n, n, 0, 0, 0) for n in (9, 12, 15)]

    def test_no_more_than_the_budget_leaves(self) -> None:
        # budget 6, 3 drafts each: row 0 has 4 tokens, row 1 the other 2; then row 1 would have none with 3 rows
        engine = always(0, draft_tokens=3, max_num_batched_tokens=6)
        add(engine, (1, 9), (1, 9))
        assert run(engine, 2)[1].scheduled == ((0, 4), (1, 2))

    def test_none_when_too_many_run(self) -> None:
        # rows 0 and 1 are 2 > 1; alone row 0 drafts again
        engine = always(0, draft_tokens=3, draft_max_seqs=1)
        add(engine, (1, 5), (1, 2))
        assert scheduled(run(engine, 3)) == [((0, 1), (1, 1)), ((0, 1), (1, 1)), ((0, 4),)]

    def test_a_tree_verifies_positions(self) -> None:
        # 2 positions x width 3: 7 tokens a step, at most 2 accepted
        engine = always(9, draft_tokens=2, tree_width=3)
        add(engine, (1, 7))
        steps = run(engine)
        assert scheduled(steps) == [((0, 1),), ((0, 7),), ((0, 7),)]
        assert accepted(steps) == [(), ((0, 2),), ((0, 2),)]

    def test_a_tree_by_depth_verifies_its_nodes(self) -> None:
        # 2 + 2 x 3 = 8 nodes and the token: 9 a step, at most 2 accepted; 7 left of a budget: the first depth and more
        for budget, tokens, right in ((16, 9, 2), (8, 8, 1)):
            engine = tree((2, 8), max_num_batched_tokens=budget)
            add(engine, (1, 2 + right))
            steps = run(engine)
            assert scheduled(steps) == [((0, 1),), ((0, tokens),)]
            assert accepted(steps) == [(), ((0, right),)]

    def test_adaptive_length(self) -> None:
        # all accepted: + 2, at most 4; a rejection: - 1, at least 1
        engine = always(9, draft_tokens=4, adaptive_drafts=True)
        add(engine, (1, 40))
        run(engine, 2)
        slot = int(engine.arrays.row_slot[0])
        assert engine.arrays.slot_drafts[0, slot] == 4
        engine.arrays.accept[0, 0] = 0
        assert [row_of(run(engine, 1), 0) for _ in range(5)] == [[5], [4], [3], [2], [2]]
        engine.arrays.accept[0, 0] = 9
        assert [row_of(run(engine, 1), 0) for _ in range(3)] == [[2], [4], [5]]

    def test_a_list_is_read_at_a_place_of_the_row_and_its_tokens(self) -> None:
        values = (0, 1, 2, 3, 1, 0, 2)
        engine = build(acceptance="trace", acceptance_values=values, draft_tokens=3)
        add(engine, (1, 30), (1, 30))
        generated = [1, 1]
        for step in run(engine)[1:]:
            for row, number in step.accepted:
                expected = values[int(mix(np.uint64(row), np.uint64(generated[row]))) % len(values)]
                assert number == min(expected, 30 - generated[row] - 1)
                generated[row] += number + 1
        assert generated == [30, 30]


class TestProbability:
    def test_leading_positions_below_the_rate(self) -> None:
        # position j is right if uniform(seed, row, generated, j) < rate; the first wrong one ends it
        engine = build(acceptance="constant", acceptance_values=(0.6,), draft_tokens=4, speculative_seed=11)
        add(engine, (1, 40))
        generated = 1
        for step in run(engine)[1:]:
            draws = [uniform(11, 0, generated, position) < 0.6 for position in range(4)]
            expected = [*draws, False].index(False)
            number = step.accepted[0][1]
            assert number == min(expected, 40 - generated - 1)
            generated += number + 1

    def test_a_rate_for_each_position(self) -> None:
        for rates, expected in [((1.0, 0.0, 1.0), 1), ((1.0, 1.0, 0.0), 2), ((0.0, 1.0, 1.0), 0)]:
            engine = build(acceptance="per_position", acceptance_values=rates, draft_tokens=3)
            add(engine, (1, 30))
            assert run(engine, 2)[1].accepted == ((0, expected),)

    def test_measured_rates_hold_for_all_candidates_of_a_position(self) -> None:
        # 1 position of 2 candidates, draws by the tokens generated. A measured rate is the position's, whatever its
        # width: 0.34 and 0.16 are below 0.5, 0.55 is not; a constant one is that of each candidate: 1 - 0.5^2 = 0.75
        draws = [uniform(0, 0, generated, 0) for generated in range(1, 6)]
        assert [round(draw, 2) for draw in draws] == [0.34, 0.4, 0.16, 0.87, 0.55]
        for acceptance, right in [("per_position", (1, 1, 0, 0)), ("constant", (1, 1, 1))]:
            engine = build(acceptance=acceptance, acceptance_values=(0.5,), draft_tokens=1, tree_width=2)
            add(engine, (1, 7))
            assert [step.accepted for step in run(engine)[1:]] == [((0, number),) for number in right]

    def test_uniform_numbers_are_uniform(self) -> None:
        numbers = np.array([uniform(3, row, generated, 0) for row in range(60) for generated in range(60)])
        assert ((numbers >= 0.0) & (numbers < 1.0)).all()
        counts_of_tenths = np.histogram(numbers, bins=10, range=(0.0, 1.0))[0]
        # chi-squared with 9 degrees of freedom: 27.9 is passed once in a thousand
        assert ((counts_of_tenths - 360) ** 2 / 360).sum() < 27.9


class TestBlocks:
    def test_the_lookahead_needs_blocks(self) -> None:
        # 4 in: 1 block; then 1 + 3 tokens more: 2 blocks at once, though none is accepted and 5 are known
        engine = always(0, draft_tokens=3)
        add(engine, (4, 9))
        assert [100 - step.free_blocks for step in run(engine, 3)] == [1, 2, 3]

    def test_wrong_drafts_keep_their_block_and_seal_nothing(self) -> None:
        # step 1 computes tokens 5 to 8: block 1 is full of drafts, and not known
        engine = always(0, draft_tokens=3)
        add(engine, (4, 9))
        run(engine, 2)
        assert len(blocks(engine, 0)) == 2
        assert engine.arrays.slot_sealed[0, engine.arrays.row_slot[0]] == 1

    def test_others_are_preempted_for_drafts(self) -> None:
        # 3 blocks: row 0 (4 in, 1 block) wants 2; row 1 (5 in) has the other 2
        engine = always(0, draft_tokens=3, num_blocks=3)
        add(engine, (4, 3), (5, 2))
        steps = run(engine, 2)
        assert preempted(steps) == [(), (1,)]

    def test_before_a_sequence_gives_way_itself_its_drafts_do(self) -> None:
        # 2 blocks. 7 in: 2 blocks; token 8 fits, with 3 drafts it would take a third block
        engine = always(0, draft_tokens=3, num_blocks=2)
        add(engine, (7, 2))
        steps = run(engine)
        assert scheduled(steps) == [((0, 7),), ((0, 1),)]
        assert preempted(steps) == [(), ()]


class TestTime:
    def test_gaps_are_those_of_steps_then_none(self) -> None:
        # 1 + 3 + 3 tokens: gaps of 1 s, 0, 0, 1 s, 0, 0
        engine = always(2, draft_tokens=3)
        engine.arrays.itl_window_s[1] = np.inf
        add(engine, (5, 7))
        run(engine)
        counts_of_gaps = engine.arrays.itl_counts
        assert counts_of_gaps.sum() == 6
        assert counts_of_gaps[0] == 4
        assert engine.arrays.row_finish_s[0] == 3.0

    def test_drafting_takes_time_per_position(self) -> None:
        # 3 positions of 0.125 s of the host; a tree of width 2 has as many positions; the prompt's step has none
        for tree_width in (1, 2):
            engine = always(0, draft_tokens=3, tree_width=tree_width)
            engine.arrays.draft_step_s[0] = 0.125
            add(engine, (5, 2))
            assert [step.seconds for step in run(engine)] == [(1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.375)]

    def test_drafting_a_tree_runs_over_what_the_pass_before_has_added(self) -> None:
        # steps take 1 s a token here: the step 1 + 8, its first pass over the same tokens, the second over 2 nodes
        engine = tree((2, 8), step_s=0.0, token_s=1.0)
        engine.arrays.draft_cost_kind[0] = 0
        add(engine, (1, 3))
        assert [step.seconds[0] for step in run(engine)] == [1.0, 9.0 + 9.0 + 2.0]

    def test_heads_for_all_positions_take_one_pass(self) -> None:
        engine = always(9, draft_tokens=4, step_s=1.0)
        engine.arrays.draft_cost_kind[0] = 0
        engine.arrays.draft_one_pass[0] = 1
        engine.arrays.draft_step_s[0] = 0.125
        add(engine, (1, 5))
        assert run(engine)[1].seconds == (2.0, 0.0, 0.0, 0.125)

    @pytest.mark.parametrize(("num_accepted", "num_steps"), [(0, 9), (1, 5), (3, 3), (8, 1)])
    def test_speed_up(self, num_accepted: int, num_steps: int) -> None:
        # 9 tokens after the first, a + 1 a step
        engine = always(num_accepted, draft_tokens=8)
        add(engine, (5, 10))
        assert len(run(engine)) == 1 + num_steps
