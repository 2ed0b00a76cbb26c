"""The rules of a serving step on the compiled engine, one small case each, decisions derived by hand.

Unless a case says otherwise: blocks of 4 tokens, a budget of 16, every step takes 1 s, no two requests share content.
A request is (prompt tokens, output tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hermes_sim.batching.schedule import bring_kv_forward
from hermes_sim.sim.advance import push, reserve
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.sim.steps import begin_step, end_step
from hermes_sim.state.arrays import HAS_KV
from hermes_sim.state.queues import push_back
from tests.one_engine import CompiledEngine, Options, Step

Scheduled = tuple[tuple[int, int], ...]
"""(row, tokens) in running order."""


def build(num_rows: int = 8, **options: Any) -> CompiledEngine:
    defaults: dict[str, Any] = {
        "num_blocks": 100, "block_tokens": 4, "max_num_seqs": 8, "max_num_batched_tokens": 16,
    }  # fmt: skip
    engine = CompiledEngine(Options(**{**defaults, **options}), num_rows)
    engine.arrays.cost_linear[0, :, 0] = engine.arrays.cost_decode_linear[0, :, 0] = 1.0
    return engine


def add(engine: CompiledEngine, *requests: tuple[int, int], first_row: int = 0, at_s: float = 0.0) -> None:
    for row, (num_prompt, num_output) in enumerate(requests, start=first_row):
        engine.push(at_s, row, num_prompt, num_output)
    assert engine.rejected == []


def run(engine: CompiledEngine, num_steps: int | None = None) -> list[Step]:
    """So many steps, or all there are."""
    steps: list[Step] = []
    while np.isfinite(engine.next_start_s) and len(steps) != num_steps:
        steps.append(engine.step(engine.next_start_s))
    return steps


def scheduled(steps: Sequence[Step]) -> list[Scheduled]:
    return [step.scheduled for step in steps]


def share_all(engine: CompiledEngine, *rows: int) -> None:
    """These requests hold the same text, prompts and outputs alike."""
    engine.arrays.content_group[list(rows)] = 1
    engine.arrays.content_group_tokens[list(rows)] = 10_000


def waiting(engine: CompiledEngine) -> list[int]:
    rows, row = [], int(engine.arrays.queue_head[0])
    while row >= 0:
        rows.append(row)
        row = int(engine.arrays.row_next[row])
    return rows


def blocks(engine: CompiledEngine, row: int) -> list[int]:
    slot = engine.arrays.row_slot[row]
    return [int(block) for block in engine.arrays.block_table[0, slot, : engine.arrays.slot_blocks[0, slot]]]


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
        assert [step.num_preemptions for step in steps] == [0, 1]
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
        assert [step.num_preemptions for step in steps] == [0, 1, 0]


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
        assert [step.num_preemptions for step in steps] == [0, 0, 1, *[0] * 15]
        assert steps[2].free_blocks == 1
        assert steps[10].batch == (9, 1, 0, 0, 0, 1, 45, 9)  # a prefill: 9 x 10 / 2 pairs
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
        assert [step.num_preemptions for step in steps] == [0, 0, 1, 0, 0]
        assert steps[3].batch == (1, 1, 1, 9, 9, 0, 0, 0)
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


class TestPrefixCache:
    """Rules 10 and 11: chained over full blocks, outputs included, capped; least recently used goes first."""

    def test_a_fully_cached_prompt_still_computes_its_last_block(self) -> None:
        # 8 tokens cached, prompt of 8: 4 may be shared. A prompt of 9 shares 8.
        engine = build()
        share_all(engine, 0, 1, 2)
        add(engine, (8, 1))
        run(engine, 1)
        add(engine, (8, 1), (9, 1), first_row=1, at_s=1.0)
        assert scheduled(run(engine)) == [((1, 4), (2, 1))]
        assert engine.arrays.row_cached[:3].tolist() == [0, 4, 8]
        assert engine.arrays.total_cached_tokens[0] == 12

    def test_generated_tokens_are_cached_too(self) -> None:
        # 6 in, 3 out: 8 tokens are stored, the second block half output. A next turn of 12 finds 8.
        engine = build()
        share_all(engine, 0, 1)
        add(engine, (6, 3))
        run(engine)
        add(engine, (12, 1), first_row=1, at_s=3.0)
        assert scheduled(run(engine)) == [((1, 4),)]

    def test_blocks_count_from_the_end_of_the_step_that_filled_them(self) -> None:
        # side by side in one step nothing is shared; while row 0 goes on, row 2 shares with it
        engine = build()
        share_all(engine, 0, 1, 2)
        add(engine, (8, 3), (8, 1))
        assert run(engine, 1)[0].scheduled == ((0, 8), (1, 8))
        add(engine, (9, 1), first_row=2, at_s=1.0)
        assert run(engine, 1)[0].scheduled == ((0, 1), (2, 1))
        assert engine.arrays.row_cached[2] == 8

    def test_least_recently_used_goes_first_and_last_blocks_before_first_ones(self) -> None:
        # 6 blocks. Rows 0 (blocks 0, 1) and 1 (2, 3) leave together: free 4, 5, 1, 0, 3, 2. Row 2 (12 tokens) takes
        # 4, 5, 1 and leaves: free 0, 3, 2, 1, 5, 4. Row 3 asks as row 0 did: block 0 is still known, block 1 is not;
        # then it takes 3 and 2, so that row 1's text is gone when row 4 asks for it.
        engine = build(num_blocks=6, max_num_batched_tokens=64)
        arrays = engine.arrays
        arrays.content_group[[0, 3]], arrays.content_group[[1, 4]] = 1, 2
        arrays.content_group_tokens[[0, 1, 3, 4]] = 100
        add(engine, (8, 1), (8, 1))
        run(engine, 1)
        add(engine, (12, 1), first_row=2, at_s=1.0)
        run(engine, 1)
        add(engine, (9, 2), (9, 1), first_row=3, at_s=2.0)
        assert run(engine, 1)[0].scheduled == ((3, 5), (4, 9))
        assert blocks(engine, 3) == [0, 3, 2]

    def test_a_hit_makes_a_block_recent(self) -> None:
        # 4 blocks. Row 0 leaves 2, 3, 1, 0 free. Row 1 shares block 0 (5 tokens) and takes 2; when it leaves, the
        # order is 3, 1, 2, 0: row 2 (3 blocks) reuses 3, 1, 2, and the first block is still known.
        engine = build(num_blocks=4)
        share_all(engine, 0, 1, 3)
        add(engine, (8, 1))
        run(engine, 1)
        add(engine, (5, 1), first_row=1, at_s=1.0)
        run(engine, 1)
        add(engine, (12, 2), first_row=2, at_s=2.0)
        run(engine, 1)
        assert blocks(engine, 2) == [3, 1, 2]


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


def arrive_with_kv(engine: CompiledEngine, row: int, num_prompt: int, num_output: int, at_s: float) -> None:
    """A prompt computed elsewhere: blocks are reserved, then its KV is there."""
    arrays = engine.arrays
    arrays.row_prompt[row], arrays.row_output[row], arrays.row_generated[row] = num_prompt, num_output, 1
    assert reserve(arrays.handle, 0, row, at_s, ARRIVAL)
    arrays.row_flags[row] |= HAS_KV
    push(arrays.handle, 0, 0, row, at_s, ARRIVAL)


class TestRemoteKv:
    """Rule 18 and the end of rule 6: blocks are held before the sequence runs, so it may pass a head that waits."""

    def test_decodes_at_once_over_its_whole_prompt(self) -> None:
        # 8 tokens came with it, the first output is computed first: a decode over 9, 3 blocks reserved
        engine = build(num_blocks=5)
        arrive_with_kv(engine, 0, 8, 3, 0.0)
        assert engine.arrays.num_free_blocks[0] == 2
        steps = run(engine)
        assert scheduled(steps) == [((0, 1),), ((0, 1),)]
        assert steps[0].batch == (1, 1, 1, 9, 9, 0, 0, 0)
        assert engine.arrays.row_finish_s[0] == 2.0
        assert engine.arrays.num_free_blocks[0] == 5

    def test_behind_a_head_that_lacks_blocks_it_comes_forward(self) -> None:
        # 5 blocks: 3 are row 0's; row 1 at the head of the line wants 4 and nothing runs
        engine = build(num_blocks=5)
        arrays = engine.arrays
        arrays.row_prompt[0], arrays.row_output[0], arrays.row_generated[0] = 8, 3, 1
        assert reserve(arrays.handle, 0, 0, 0.0, ARRIVAL)
        add(engine, (16, 1), (2, 1), first_row=1)
        begin_step(arrays.handle, 0, 0.0)
        assert (arrays.num_running[0], engine.next_start_s) == (0, np.inf)
        arrays.row_flags[0] |= HAS_KV
        push(arrays.handle, 0, 0, 0, 1.0, ARRIVAL)
        assert scheduled(run(engine)) == [((0, 1),), ((0, 1),), ((1, 16),), ((2, 2),)]

    def test_behind_a_head_that_lacks_a_slot_it_comes_forward(self) -> None:
        # one slot, which row 0 holds; row 1 at the head of the line has none to run in
        engine = build(num_blocks=9, max_num_seqs=1)
        arrays = engine.arrays
        arrays.row_prompt[0], arrays.row_output[0], arrays.row_generated[0] = 8, 3, 1
        assert reserve(arrays.handle, 0, 0, 0.0, ARRIVAL)
        add(engine, (4, 1), first_row=1)
        arrays.row_flags[0] |= HAS_KV
        push(arrays.handle, 0, 0, 0, 1.0, ARRIVAL)
        assert scheduled(run(engine)) == [((0, 1),), ((0, 1),), ((1, 4),)]

    @pytest.mark.parametrize(
        ("with_kv", "expected"), [([3], [3, 0, 1, 2]), ([1, 2], [1, 0, 2, 3]), ([], None), ([0], None)]
    )
    def test_first_of_them_behind_the_head_is_moved(self, with_kv: list[int], expected: list[int] | None) -> None:
        engine = build()
        arrays = engine.arrays
        for row in range(4):
            push_back(arrays.handle, 0, row)
        arrays.row_flags[with_kv] |= HAS_KV
        assert bool(bring_kv_forward(arrays.handle, 0)) == (expected is not None)
        assert waiting(engine) == (expected or [0, 1, 2, 3])
        assert arrays.queue_length[0] == 4
        push_back(arrays.handle, 0, 4)
        assert waiting(engine)[-1] == 4


class TestBatch:
    """What the cost model is told (rule 16)."""

    def test_counts_by_hand(self) -> None:
        # step 0: 5 (pairs 15) + the first 11 of 40 (66). Step 1: decode over 6; 15 after 11 (15 x 11 + 120 = 285).
        # Step 2: decode over 7; 14 after 26 (364 + 105). Step 3: decodes over 8 and 41.
        engine = build()
        add(engine, (5, 5), (40, 2))
        assert [step.batch for step in run(engine, 4)] == [
            (16, 1, 0, 0, 0, 2, 81, 16),
            (16, 1, 1, 6, 6, 1, 285, 26),
            (15, 2, 1, 7, 7, 1, 469, 40),
            (2, 2, 2, 49, 41, 0, 0, 0),
        ]

    def test_last_single_token_of_a_prompt_is_prefill(self) -> None:
        engine = build()
        add(engine, (17, 1))
        assert run(engine)[1].batch == (1, 1, 0, 0, 0, 1, 17, 17)

    def test_load_is_what_is_left(self) -> None:
        # 5 + 3 - 1 tokens to compute, 3 to come
        engine = build()
        add(engine, (5, 3), (20, 1))
        arrays = engine.arrays
        seen = [(int(arrays.load_tokens[0]), int(arrays.load_output_tokens[0]), int(arrays.load_requests[0]))]
        while np.isfinite(engine.next_start_s):
            begin_step(arrays.handle, 0, engine.next_start_s)
            end_step(arrays.handle, 0, 0)
            seen.append((int(arrays.load_tokens[0]), int(arrays.load_output_tokens[0]), int(arrays.load_requests[0])))
        # steps: 5 + 11, 1 + 9 (the second is done), 1
        assert seen == [(27, 4, 2), (11, 3, 2), (1, 1, 1), (0, 0, 0)]
