"""Sliding windows: blocks given up where every layer slides, extra ones where only some do."""

from __future__ import annotations

from tests.rules.driving import add, blocks, build, free, run, scheduled, share_all


class TestEveryLayerSlides:
    """A window of W blocks: the next token looks at the last W, the one it goes into included."""

    def test_blocks_out_of_the_window_are_given_up(self) -> None:
        # W = 2, blocks of 4. Prompt of 4: block 0. Tokens 5 to 8: block 1. Before token 9 (8 computed: 8 // 4 + 1 - 2 =
        # 1) block 0 goes to the tail of the queue, then block 2 is taken.
        engine = build(window_blocks=2, all_layers_slide=True, num_blocks=6)
        add(engine, (4, 10))
        steps = run(engine, 5)
        assert [6 - step.free_blocks for step in steps] == [1, 2, 2, 2, 2]
        assert blocks(engine, 0) == [0, 1]
        step = run(engine, 1)[0]
        assert 6 - step.free_blocks == 2
        assert blocks(engine, 0) == [1, 2]
        assert free(engine) == [3, 4, 5, 0]

    def test_no_more_than_the_window_is_ever_needed(self) -> None:
        # 3 blocks do for a prompt of 8 and 40 tokens
        engine = build(window_blocks=3, all_layers_slide=True, num_blocks=40, max_num_batched_tokens=8)
        add(engine, (32, 20))
        steps = run(engine)
        assert max(40 - step.free_blocks for step in steps) == 4  # two new ones before a chunk of 8, two behind it
        assert 40 - steps[-1].free_blocks == 3

    def test_hits_in_the_window_are_shared(self) -> None:
        # Row 0 leaves blocks 0 to 3 (16 tokens). Row 1 (17) finds 4: shares those with index >= 4 + 1 - 2 = 3.
        engine = build(window_blocks=2, all_layers_slide=True)
        share_all(engine, 0, 1)
        add(engine, (16, 1))
        run(engine)
        add(engine, (17, 2), first_row=1, at_s=1.0)
        step = run(engine, 1)[0]
        assert (step.scheduled, step.admitted) == (((1, 1),), ((1, 16),))
        assert blocks(engine, 1) == [3, 4]

    def test_the_gate_asks_for_the_first_chunk_only(self) -> None:
        # 4 blocks: a prompt of 40 would not fit, its chunks of 8 do
        engine = build(window_blocks=2, all_layers_slide=True, num_blocks=12, max_num_batched_tokens=8)
        add(engine, (40, 2))
        assert scheduled(run(engine)) == [((0, 8),)] * 5 + [((0, 1),)]


class TestSomeLayersSlide:
    """Hybrid models: each of the first W blocks costs one pool block more for every group of sliding layers."""

    def test_blocks_by_hand(self) -> None:
        # W = 2, 3 groups: 4 pool blocks for block 0, 4 for block 1, then 1 each
        engine = build(window_blocks=2, window_groups=3)
        add(engine, (3, 16))
        used = [100 - step.free_blocks for step in run(engine)]
        # 3, 4: 1 block; 5 to 8: 2; 9 to 12: 3; 13 to 16: 4; 17, 18: 5
        assert used == [4] * 2 + [8] * 4 + [9] * 4 + [10] * 4 + [11] * 2

    def test_own_blocks_first_then_extras_back_in_reverse(self) -> None:
        # 5 tokens: own 0, 1; extras 2, 3 (1 group). Back: 3, 2, then 1, 0
        engine = build(window_blocks=2, window_groups=1, num_blocks=6)
        add(engine, (5, 1))
        engine.act()
        assert blocks(engine, 0) == [0, 1, 2, 3]
        run(engine)
        assert free(engine) == [4, 5, 3, 2, 1, 0]

    def test_hits_need_fresh_extras(self) -> None:
        # Row 0 leaves 2 blocks cached. Row 1 (9 in) shares both, takes 1 own and 2 x 2 extras: 5 of 7 not shared
        engine = build(window_blocks=2, window_groups=2, num_blocks=20)
        share_all(engine, 0, 1)
        add(engine, (8, 1))
        run(engine)
        add(engine, (9, 2), first_row=1, at_s=1.0)
        step = run(engine, 1)[0]
        assert step.admitted == ((1, 8),)
        assert 20 - step.free_blocks == 2 + 1 + 4

    def test_the_gate_counts_extras(self) -> None:
        # each needs 2 + 2 x 2 = 6 pool blocks for 8 tokens: 11 hold one, 12 two
        for num_blocks, first in [(11, ((0, 8),)), (12, ((0, 8), (1, 8)))]:
            engine = build(window_blocks=2, window_groups=2, num_blocks=num_blocks)
            add(engine, (8, 1), (8, 1))
            assert run(engine, 1)[0].scheduled == first
