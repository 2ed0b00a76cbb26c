"""Rules 10 and 11: what is found again, and what is thrown away first."""

from __future__ import annotations

from tests.rules.driving import add, blocks, build, run, scheduled, share_all


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
