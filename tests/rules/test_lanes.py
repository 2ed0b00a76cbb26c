"""Rules 12 and 13: progress counts when it is scheduled; several steps in flight; times by hand."""

from __future__ import annotations

import pytest

from tests.one_engine import CompiledEngine
from tests.rules.driving import add, build, preempted, run, scheduled, waiting


def spans(engine: CompiledEngine) -> list[tuple[float, float]]:
    """Begin and end of all steps."""
    run(engine)
    return [(step.start_s, step.end_s) for step in engine.steps]


class TestPipeline:
    """p stages of equal length: a step of 1 s holds each for 1 / p s."""

    def test_chunks_of_one_prompt_overlap(self) -> None:
        # 20 tokens in chunks of 8, 8, 4 over 4 stages: entries every 0.25 s, exits 0.25 s apart; the first token at
        # 1.5 s. Its decode waits for it.
        engine = build(num_stages=4, stage_interval_frac=0.25, max_num_batched_tokens=8)
        add(engine, (20, 2))
        steps = run(engine)
        assert scheduled(steps) == [((0, 8),), ((0, 8),), ((0, 4),), ((0, 1),)]
        assert [(step.start_s, step.end_s) for step in steps] == [(0.0, 1.0), (0.25, 1.25), (0.5, 1.5), (1.5, 2.5)]

    def test_computed_counts_at_once_done_at_the_end(self) -> None:
        engine = build(num_stages=2, stage_interval_frac=0.5, max_num_batched_tokens=8)
        add(engine, (16, 1))
        engine.act()
        arrays = engine.arrays
        assert (arrays.slot_computed[0, 0], arrays.slot_done[0, 0], arrays.load_tokens[0]) == (8, 0, 16)
        engine.act()
        assert (arrays.slot_computed[0, 0], arrays.slot_done[0, 0], arrays.num_in_flight[0]) == (16, 0, 2)
        engine.act()
        assert (arrays.slot_computed[0, 0], arrays.slot_done[0, 0], arrays.load_tokens[0]) == (16, 8, 8)

    def test_a_decode_is_in_one_step_at_a_time(self) -> None:
        # two requests take turns in two stages
        engine = build(num_stages=2, stage_interval_frac=0.5, max_num_seqs=8)
        add(engine, (4, 3))
        engine.act()
        add(engine, (4, 3), first_row=1, at_s=0.25)
        assert spans(engine) == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.5, 2.5), (2.0, 3.0), (2.5, 3.5)]
        assert scheduled(engine.steps) == [((row, tokens),) for tokens in (4, 1, 1) for row in (0, 1)]

    def test_who_is_in_flight_is_not_preempted(self) -> None:
        # 2 blocks. Row 1 is in flight with its block when row 0 needs a second one at 1 s (prompt 4, token 5): there is
        # no victim but itself... and it is not in flight: it goes, and resumes when row 1's prompt (and end) frees one.
        engine = build(num_stages=2, stage_interval_frac=0.5, num_blocks=2, prefix_caching=False)
        add(engine, (4, 2))
        engine.act()
        add(engine, (4, 1), first_row=1, at_s=0.25)
        run(engine)
        steps = engine.steps
        assert scheduled(steps) == [((0, 4),), ((1, 4),), ((0, 5),)]
        assert (engine.arrays.total_preemptions[0], preempted(steps)) == (1, [(), (), (0,)])
        assert steps[2].start_s == 1.5


class TestAsync:
    """The next step is decided when the host has sent the last one off: 1 s of the device, 0.25 s of the host."""

    def test_the_hosts_time_is_hidden(self) -> None:
        # Alone: 1.25 s. Then each 1 s after the one before; decided 0.25 s after that one was.
        engine = build(async_scheduling=True, host_s=0.25)
        add(engine, (4, 4))
        assert spans(engine) == [(0.0, 1.25), (0.25, 2.25), (1.25, 3.25), (2.25, 4.25)]
        # without it each takes 1.25 s
        engine = build(host_s=0.25)
        add(engine, (4, 4))
        assert spans(engine) == [(0.0, 1.25), (1.25, 2.5), (2.5, 3.75), (3.75, 5.0)]

    def test_a_slow_host_sets_the_pace(self) -> None:
        # 2 s of the host: step k is decided at 2 k s and ends 3 s later
        engine = build(async_scheduling=True, host_s=2.0)
        add(engine, (4, 3))
        assert spans(engine) == [(0.0, 3.0), (2.0, 5.0), (4.0, 7.0)]

    def test_only_what_is_not_hidden_is_the_hosts(self) -> None:
        engine = build(async_scheduling=True, host_s=0.25)
        add(engine, (4, 4))
        run(engine)
        # busy 4.25 s: 4 x 1 s of compute, 0.25 s before the first
        assert engine.arrays.busy_s[0] == pytest.approx(4.25)
        assert engine.arrays.shares[0, :4].tolist() == pytest.approx([4.0, 0.0, 0.0, 0.25])

    def test_an_arrival_is_admitted_one_step_later(self) -> None:
        # row 1 comes at 0.5 s; the step that begins on the device at 1.25 s was decided at 0.25 s: row 1 is in the one
        # decided at 1.25 s, which ends at 3.25 s. In step, it would be in the step from 1.25 s to 2.5 s.
        for is_async, end_s in [(True, 3.25), (False, 2.5)]:
            engine = build(async_scheduling=is_async, host_s=0.25)
            add(engine, (4, 9))
            while engine.next_start_s < 0.5:
                engine.act()
            add(engine, (4, 1), first_row=1, at_s=0.5)
            run(engine)
            assert engine.arrays.row_finish_s[1] == end_s

    def test_ends_by_the_number_of_tokens_are_foreseen(self) -> None:
        # two tokens: the prompt's step and one decode, decided before the first token is there; no third step
        engine = build(async_scheduling=True)
        add(engine, (4, 2), (4, 1))
        assert scheduled(run(engine)) == [((0, 4), (1, 4)), ((0, 1),)]

    def test_chunks_follow_each_other(self) -> None:
        engine = build(async_scheduling=True, host_s=0.25)
        add(engine, (40, 2))
        assert scheduled(run(engine)) == [((0, 16),), ((0, 16),), ((0, 8),), ((0, 1),)]

    def test_a_victim_in_flight_loses_what_its_step_brings(self) -> None:
        # 4 blocks, no cache, 7 in each. Step 1 decides the eighth tokens. Step 2 (decided at 1 s, step 1 in flight):
        # row 0 needs a third block: row 1 goes, its second output, in flight, is lost: it has 1 output, 8 known tokens.
        engine = build(async_scheduling=True, num_blocks=4, prefix_caching=False)
        add(engine, (7, 3), (7, 3))
        steps = run(engine)
        assert scheduled(steps[:3]) == [((0, 7), (1, 7)), ((0, 1), (1, 1)), ((0, 1),)]
        assert steps[2].preempted == (1,)
        assert scheduled(steps[3:])[0] == ((1, 8),)
        assert engine.arrays.row_generated[:2].tolist() == [3, 3]
        # done: the prompt's 7; the eighth token was under way
        assert engine.arrays.total_recomputed_tokens[0] == 7

    def test_who_is_in_flight_never_preempts_itself(self) -> None:
        # 2 blocks of 2 and a sample beside: row 0 (2 in) fills block 0; the sample shares it and waits... Row 0 alone
        # runs, needs a third block at 4 tokens while its step is in flight: it waits for the end of that step.
        engine = build(async_scheduling=True, num_blocks=3, prefix_caching=False, max_num_seqs=2)
        add(engine, (4, 6), (4, 2))
        steps = run(engine)
        # step 1 (decided in flight of step 0): row 0 takes the third block; row 1 needs one too, is its own victim, in
        # flight: it waits. When step 0 has ended it goes, not being in flight, and comes back when there is room.
        assert scheduled(steps[:2]) == [((0, 4), (1, 4)), ((0, 1),)]
        assert engine.arrays.row_preemptions[:2].tolist() == [0, 1]
        assert engine.arrays.row_generated[:2].tolist() == [6, 2]
        assert waiting(engine) == []
