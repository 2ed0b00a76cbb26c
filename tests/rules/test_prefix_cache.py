"""Rules 10 and 11: what is found again, and what is thrown away first."""

from __future__ import annotations

from tests.rules.driving import add, blocks, build, free, run, scheduled, share_all


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

    def test_side_by_side_in_one_step(self) -> None:
        # entered when scheduled (vLLM V1): row 1 finds block 0 of row 0 in the very step that computes it; its second
        # block is its last token's. Entered at the end of the step: nothing is shared until the next one.
        for insert_at, second in [("schedule", 4), ("step_end", 8)]:
            engine = build(insert_at=insert_at)
            share_all(engine, 0, 1, 2)
            add(engine, (8, 3), (8, 1))
            assert run(engine, 1)[0].scheduled == ((0, 8), (1, second))
            add(engine, (9, 1), first_row=2, at_s=1.0)
            assert run(engine, 1)[0].scheduled == ((0, 1), (2, 1))
            assert engine.arrays.row_cached[:3].tolist() == [0, 8 - second, 8]

    def test_a_token_that_is_not_known_seals_no_block(self) -> None:
        # prompt of 7: step 1 computes output 1 as token 8, known by then, and seals block 1; step 2 seals nothing
        engine = build()
        share_all(engine, 0)
        add(engine, (7, 4))
        sealed = []
        for _ in range(3):
            run(engine, 1)
            sealed.append(int(engine.arrays.slot_sealed[0, engine.arrays.row_slot[0]]))
        assert sealed == [1, 2, 2]

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


class TestRadix:
    """SGLang's tree: one copy of each content, leaves go first."""

    def test_a_twin_is_given_up_for_the_cached_block(self) -> None:
        # Side by side rows 0 and 1 compute the same 8 tokens in blocks 0, 1 and 2, 3. At the end of the step row 0's
        # are in the tree; row 1 shares them and gives 2 and 3 up, which hold nothing: to the front of the queue, 3
        # first.
        engine = build(num_blocks=8, prefix_cache="radix", insert_at="step_end")
        share_all(engine, 0, 1)
        add(engine, (8, 3), (8, 3))
        assert run(engine, 1)[0].free_blocks == 4
        assert (blocks(engine, 0), blocks(engine, 1)) == ([0, 1], [0, 1])
        assert free(engine) == [3, 2, 4, 5, 6, 7]
        # the next step takes 3 and 2 for the ninth tokens
        run(engine, 1)
        assert (blocks(engine, 0), blocks(engine, 1)) == ([0, 1, 3], [0, 1, 2])

    def test_a_plain_hash_table_keeps_both(self) -> None:
        engine = build(num_blocks=8, insert_at="step_end")
        share_all(engine, 0, 1)
        add(engine, (8, 3), (8, 3))
        run(engine, 1)
        assert (blocks(engine, 0), blocks(engine, 1)) == ([0, 1], [2, 3])

    def test_blocks_without_content_are_used_before_cached_ones(self) -> None:
        # row 0 (6 tokens) leaves block 0 cached and block 1 half full: 1 in front, 0 at the tail
        for cache, order in [("radix", [1, 2, 3, 0]), ("hash", [2, 3, 1, 0])]:
            engine = build(num_blocks=4, prefix_cache=cache, insert_at="step_end")
            add(engine, (6, 1))
            run(engine)
            assert free(engine) == order

    def test_leaves_are_evicted_before_what_they_hang_on(self) -> None:
        # Row 0 leaves 0 <- 1 <- 2 cached, free as 3, 2, 1, 0. Row 1 shares 0 and 1 (9 tokens, its third block is 3) and
        # leaves: free 3, 2, 1, 0 again, since its blocks came back in the order 3 (empty: front), 1, 0 behind 2.
        # A hit on block 0 alone (row 2, 5 tokens; takes 3) leaves: 3 in front, 0 behind: 3, 2, 1, 0. Row 3 (4 blocks)
        # takes 3; then 2, a leaf; then 1, now a leaf; then 0.
        engine = build(num_blocks=4, prefix_cache="radix", insert_at="step_end")
        share_all(engine, 0, 1, 2)
        add(engine, (12, 1))
        run(engine)
        assert free(engine) == [3, 2, 1, 0]
        add(engine, (9, 1), first_row=1, at_s=1.0)
        run(engine)
        assert free(engine) == [3, 2, 1, 0]
        add(engine, (5, 1), first_row=2, at_s=2.0)
        run(engine)
        assert free(engine) == [3, 2, 1, 0]
        add(engine, (16, 1), first_row=3, at_s=3.0)
        engine.act()
        assert blocks(engine, 3) == [3, 2, 1, 0]

    def test_a_parent_at_the_head_of_the_queue_is_passed_over(self) -> None:
        # rows 0 and 1 share their first 4 tokens and go on with texts of their own
        engine = build(num_blocks=6, prefix_cache="radix", insert_at="step_end", max_num_batched_tokens=64)
        share_all(engine, 0, 1, tokens=4)
        add(engine, (9, 1))
        run(engine)
        # cached 0 <- 1; free 2 (empty, front), 3, 4, 5, 1, 0
        assert free(engine) == [2, 3, 4, 5, 1, 0]
        add(engine, (9, 1), first_row=1, at_s=1.0)
        run(engine)
        # row 1 shared 0, computed 2 (its second block, cached below 0) and 3 (empty again): 3, 4, 5, 1, 2, 0
        assert free(engine) == [3, 4, 5, 1, 2, 0]
        add(engine, (20, 2), first_row=2, at_s=2.0)
        run(engine, 1)
        assert blocks(engine, 2) == [3, 4, 5, 1, 2]
        assert free(engine) == [0]
